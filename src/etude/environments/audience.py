"""Users who are recommended things, say what they would rather have, and leave when they have had enough.

After Liu et al. 2025, "RecoWorld: Building Simulated Environments for Agentic Recommender Systems", arXiv:2509.10397.
The agent sees what a user clicked last and calls `recommend` with words; the items of a catalogue that share most of
them, and were not shown yet, make a list. A user has interests, boredom with each topic, and patience. An item is
clicked where interest - boredom + whim is at least 1/2, else skipped with a reason; a click feeds the interest, a topic
that was shown bores, and boredom wears off. A list of which more than half is skipped costs patience, and, instead of
leaving, the user says what there should be less and more of; without patience the user leaves. With `users` above 1 a
list goes to all of them, and what one clicks those under its influence like better in the next round.

The reward is half the share of rounds that the users stayed and half the share of items that they clicked.

Departures: the paper is a blueprint whose users are language models; these follow rules, so that the same task is the
same user. Items are words, found by the words they share.
"""

import copy
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.trajectory import Message, ToolCall

EXPERTS = ("follow", "history", "wander")
TOPICS = ("jazz", "chess", "cats", "cars", "maths", "tea")
STYLES = ("new", "old", "short", "long", "quiet", "odd", "plain", "great")
CATALOGUE = [f"{style} {topic}" for style in STYLES for topic in TOPICS]
NAMES = ("Ana", "Ben", "Eva", "Leo", "Mia", "Jan")
SHOWN = 3
DISENGAGED = 0.5
BORES, FEEDS, SWAYS, WEARS = 0.35, 0.02, 0.3, 0.5
RECOMMEND = {
    "name": "recommend",
    "description": "show a list of items",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}


@dataclass
class User:
    """What one user is like; the agent sees the name, the history, and what the user says."""

    name: str
    interest: dict[str, float]
    """Topic -> 0 .. 1."""
    history: list[str]
    patience: float
    whims: list[float]
    """One for each item that can be shown."""
    boredom: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0.0))
    rounds: int = 0
    """Lists that were seen; the user's retention."""
    clicks: int = 0

    @property
    def gone(self) -> bool:
        return self.patience <= 0

    def appeal(self, topic: str) -> float:
        return self.interest[topic] - self.boredom[topic]

    def see(self, items: Sequence[str]) -> tuple[list[str], list[str]]:
        """The topics that are clicked, and what the user does and says, the instruction last where there is one."""
        clicked, told = list[str](), list[str]()
        for n, item in enumerate(items):
            topic = item.split()[-1]
            if self.appeal(topic) + self.whims[self.rounds * SHOWN + n] >= 0.5:
                clicked.append(topic)
                told.append(f"{item}: click")
            else:
                told.append(f"{item}: skip, {'again' if self.interest[topic] >= 0.5 else 'not for me'}")
        topics = {item.split()[-1] for item in items}
        for topic in TOPICS:
            self.boredom[topic] = self.boredom[topic] * WEARS + BORES * (topic in topics)
        for topic in clicked:
            self.interest[topic] = min(1.0, self.interest[topic] + FEEDS)
        self.rounds, self.clicks = self.rounds + 1, self.clicks + len(clicked)
        if 1 - len(clicked) / len(items) > DISENGAGED:
            self.patience -= 1
            least, most = (choose(sorted(some), key=self.appeal) for choose, some in ((min, topics), (max, TOPICS)))
            told.append("bye" if self.gone else f"less {least}, more {most}")
        return clicked, told


@part
@dataclass(eq=False)
class audience(Tasks):
    """Each task is a user, or a few, with interests that the agent must find out.

    >>> audience().tasks("test")[0].id
    'audience/test/0'
    """

    instructions: bool = True
    """Whether the agent reads what users would rather have."""
    users: int = 1
    """Who sees each list, 1 to 6."""
    influence: bool = True
    """Whether a click of one user sways those who follow it."""
    patience: float = 0.0
    """Of every user; 0: each has its own, 1 to 3 poor lists; inf: nobody ever leaves."""
    rounds: int = 6
    """Lists in an episode."""
    expert: str = "follow"
    """`follow` shows what was asked for last, `history` what was clicked long ago, `wander` that or anything."""
    size: int = 1000
    """Tasks in the split `train`; `dev` and `test` have a fifth."""
    name = "audience"
    reward_range = (0.0, 1.0)
    optimal = False  # who knew the interests could do better than who follows

    def __post_init__(self) -> None:
        if self.expert not in EXPERTS:
            raise PartError(f"environments/audience: no expert {self.expert!r}; {suggest(self.expert, EXPERTS)}")
        if not 1 <= self.users <= len(NAMES):
            raise PartError(f"environments/audience: users is {self.users!r}; give 1 to {len(NAMES)}")

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`; user n of a task is the same whoever else there is."""
        sizes = {"train": self.size, "dev": self.size // 5, "test": self.size // 5}
        if split not in sizes:
            raise PartError(f"environments/audience has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        people = [self._user(f"audience/{split}/{i}", n) for n in range(self.users)]
        follows = {name: [NAMES[n - 1]] for n, name in enumerate(NAMES[: self.users]) if n and self.influence}
        data = {"users": [vars(user) for user in people], "follows": follows, "rounds": self.rounds}
        own = [
            key for key in ("users", "influence", "patience", "rounds") if getattr(self, key) != getattr(audience, key)
        ]
        identity = "/".join(["audience", *(f"{key}={getattr(self, key)}" for key in own), split, str(i)])
        return Task(
            identity, self, split, data, people[0].history[0], float(self.users), ("recommendation",), "audience.py"
        )

    def _user(self, place: str, n: int) -> User:
        rng = random.Random(f"{place} {n}")
        interest = {topic: round(rng.uniform(0.0, 0.5), 3) for topic in TOPICS}
        liked = rng.sample(TOPICS, 2)
        interest |= {topic: round(rng.uniform(0.65, 0.95), 3) for topic in liked}
        history = rng.sample([liked[0], rng.choice([topic for topic in TOPICS if topic not in liked])], 2)
        patience = self.patience or float(rng.randint(1, 3))
        whims = [round(rng.uniform(-0.1, 0.1), 3) for _ in range(self.rounds * SHOWN)]
        return User(NAMES[n], interest, history, patience, whims)

    def open(self) -> "AudienceSession":
        return AudienceSession(self.instructions)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """What `expert` says, which is to call `recommend` until nobody is left or the rounds are over."""
        rng, room, said = random.Random(f"{task.id} {seed}"), Room(task.data), list[Message]()
        liked = [user.history[0] for user in room.users]
        wanted = liked[0]
        while not room.over:
            here = liked[0] if self.expert == "history" else wanted
            if self.expert == "wander" and rng.random() < 0.5:
                here = rng.choice(TOPICS)
            told = room.show(here)
            asked = [lines[-1].rpartition("more ")[2] for lines in told.values() if "more " in lines[-1]]
            wanted = asked[0] if asked and self.instructions else wanted
            said.append(Message("assistant", tool_calls=(ToolCall("recommend", {"query": here}, f"call_{len(said)}"),)))
        return said

    def secrets(self, task: Task) -> list[str]:
        """The interests."""
        return [str(value) for user in task.data["users"] for value in user["interest"].values()]


class Room:
    """Everybody who sees the lists, and who follows whom."""

    def __init__(self, data: Mapping[str, Any]):
        self.users = [User(**copy.deepcopy(row)) for row in data["users"]]
        self.follows, self.left, self.items = data["follows"], data["rounds"], list(CATALOGUE)
        self.rounds = data["rounds"]

    @property
    def over(self) -> bool:
        return self.left == 0 or all(user.gone for user in self.users)

    def show(self, query: str) -> dict[str, list[str]]:
        """What each user who is still there does with the next list."""
        words = set(query.lower().split())
        self.items.sort(key=lambda item: -len(words & set(item.split())))  # equal ones stay in their order
        items, self.items = self.items[:SHOWN], self.items[SHOWN:]
        self.left -= 1
        seen = {user.name: user.see(items) for user in self.users if not user.gone}
        for user in self.users:
            for other in self.follows.get(user.name, ()):
                for topic in seen.get(other, ((), ()))[0]:
                    user.interest[topic] = min(1.0, user.interest[topic] + SWAYS)
        return {name: told for name, (_, told) in seen.items()}

    def reward(self) -> float:
        """Of all users alike."""
        stayed = sum(user.rounds for user in self.users) / self.rounds
        clicked = sum(user.clicks for user in self.users) / (self.rounds * SHOWN)
        return math.fsum((stayed, clicked)) / 2 / len(self.users)


class AudienceSession(ToolSession):
    """One episode."""

    def __init__(self, instructions: bool):
        super().__init__()
        self.instructions = instructions

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.room = [RECOMMEND], Room(task.data)
        told = ". ".join(f"{user.name} clicked {' and '.join(user.history)}" for user in self.room.users)
        return Observation((Message("system", "Recommend, and keep them here."), Message("user", f"{told}.")))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        lines = []
        for user, told in self.room.show(arguments["query"]).items():
            said = told if self.instructions else [line for line in told if not line.startswith("less ")]
            lines.append(f"{user}: {'; '.join(said)}")
        self.done = self.room.over
        return "\n".join(lines)

    def current_reward(self) -> float:
        """What was earned so far is kept."""
        return self.room.reward()

    async def finish(self, answer: str) -> float:
        return self.room.reward()

    def save(self) -> Room:
        return copy.deepcopy(self.room)

    def load(self, state: Room) -> None:
        self.room = copy.deepcopy(state)
