"""Somebody at work, and an agent that sees what happens and may offer help at every event, or be silent.

After Lu et al. 2024, "Proactive Agent: Shifting LLM Agents from Reactive Responses to Active Assistance",
arXiv:2410.12361. At each of a scene's decision points the agent sees an event, what the user does and how the desk is
set, and calls `propose` or `wait`. The user accepts a proposal or refuses it. One that was accepted is carried out and
changes what follows; after PATIENCE refusals the sound is off, and nothing is wanted any more.

Whether help is needed is hidden: each thing that the user works on is an automaton. It may run into its trouble, which
the user meets alone at first. When the same thing has the same trouble again, help is needed, unless the user is in a
call or the sound is off; the wanted task is the one that the desk knows for this trouble, and no other may be named.

Splits: `train`, `dev` and `test` are scenes of coding, writing and calendar; `domains` has kinds of scenes that these
do not. `labels` (for a reward model to learn from) and `verdicts` (to try it) ask whether a decision in a scene of
their own is accepted, be it a proposal or silence; silence is accepted where nothing is needed.

The reward is the scene's F1 (see `evaluation.confusion`); the four counts are among the episode's scores. Whoever says
something instead of a call leaves, and the points that are left count as silence. `right` is 1 where the last decision
was.

Departures: rules in the place of people, of their logs and of GPT-4o, which simulates both; a proposal is one of two
tasks for what the user is at; one event at a time.
"""

import copy
import dataclasses
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.protocols import Observation, Step, Task
from etude.rendering.verdicts import NO, YES, question
from etude.tools.answers import words
from etude.trajectory import Message, ToolCall


@dataclass(frozen=True)
class Kind:
    """What can happen in one kind of scene."""

    troubles: dict[str, tuple[str, str]]
    """The verb that helps -> the trouble's event, and the event that ends it."""
    calm: tuple[str, ...]
    """Events that say nothing."""
    things: tuple[str, ...]


KINDS = {
    "coding": Kind(
        {"fix": ("fail", "pass"), "speed": ("slow", "fast")},
        ("open", "edit"),
        ("parser", "server", "module", "socket", "buffer", "thread", "path", "method"),
    ),
    "writing": Kind(
        {"add": ("no source", "new source"), "cut": ("long", "short")},
        ("open", "new line"),
        ("report", "note", "book", "text", "memo", "letter", "card", "form"),
    ),
    "calendar": Kind(
        {"move": ("full day", "free day"), "find": ("no place", "good place")},
        ("open", "new date"),
        ("flight", "match", "walk", "play", "show", "class", "lunch", "visit"),
    ),
    "mail": Kind(
        {"answer": ("request", "thanks"), "close": ("old", "closed")},
        ("open", "read"),
        ("order", "bill", "bank", "shop", "club", "school", "job", "ticket"),
    ),
    "photos": Kind(
        {"light": ("dark", "bright"), "crop": ("edge", "no edge")},
        ("open", "new name"),
        ("beach", "garden", "street", "cat", "tower", "bridge", "lake", "house"),
    ),
}
HELD_OUT = ("mail", "photos")
EXPERTS = ("right", "eager")
POINTS = 6  # decisions in a scene
PATIENCE = 3
ACTIVITIES = ("write", "write", "read", "read", "call")
SWITCH, TROUBLE, ALONE = 0.25, 0.7, 0.25  # chances: the other thing is next, trouble begins, the user mends it alone
SYSTEM = "Offer help when it is wanted."
PROPOSE = {
    "name": "propose",
    "description": "offer a task",
    "parameters": {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]},
}
WAIT = {"name": "wait", "description": "be silent", "parameters": {"type": "object", "properties": {}, "required": []}}


@part
@dataclass(eq=False)
class proactive(Tasks):
    """Scenes at a desk in which help is sometimes needed.

    >>> proactive().tasks("test")[0].id
    'proactive/test/0'
    """

    expert: str = "right"
    """`right` knows the need; `eager` offers something at most signs of trouble, and now and then without."""
    size: int = 2000
    """Scenes in `train`, and questions in `labels`; the other splits have a tenth."""
    name = "proactive"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.expert not in EXPERTS:
            raise PartError(f"environments/proactive: no expert {self.expert!r}; {suggest(self.expert, EXPERTS)}")
        self.optimal = self.expert == "right"

    def tasks(self, split: str) -> LazyTasks:
        """Scenes (`train`, `dev`, `test`, `domains`) or questions (`labels`, `verdicts`). Raises PartError."""
        few = self.size // 10
        sizes = {"train": self.size, "dev": few, "test": few, "domains": few, "labels": self.size, "verdicts": 2 * few}
        if split not in sizes:
            raise PartError(f"environments/proactive has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        identity = f"proactive/{split}/{i}"
        rng = random.Random(identity)
        kind = rng.choice(HELD_OUT if split == "domains" else [k for k in KINDS if k not in HELD_OUT])
        while True:  # until somebody who is silent would miss a need
            data: dict[str, Any] = {"kind": kind, "seed": f"{identity} {rng.random()}"}
            if needs := Scene(data).confusion()["fn"]:
                break
        if split in ("labels", "verdicts"):
            data = label(data, rng)
            return Task(identity, self, split, data, kind, 1.0, ("judging", data["answer"]), "proactive.py")
        return Task(identity, self, split, data, kind, float(needs), ("offering",), "proactive.py")

    def open(self) -> "ProactiveSession":
        return ProactiveSession()

    def solve(self, task: Task, seed: int) -> list[Message]:
        """What the expert does at each point; of a question, the answer."""
        if "answer" in task.data:
            return [Message("assistant", task.data["answer"])]
        scene, said, rng = Scene(task.data), list[Message](), random.Random(f"{task.id} {seed}")
        while not scene.over:
            offer = scene.need if self.expert == "right" else eager(scene, rng)
            said.append(deed(offer, len(said)))
            scene.decide(offer)
        return said

    def secrets(self, task: Task) -> list[str]:
        """What chance is made of; the tasks are told, and a question names its two answers."""
        return [] if "answer" in task.data else [task.data["seed"]]


# -- the hidden automaton --------------------------------------------------------------------------------------------


@dataclass
class Thing:
    """Something that the user works on."""

    name: str
    verb: str
    """What helps with the trouble that it may have."""
    signs: int = 0
    """How often its trouble showed; from the second time on the user is stuck."""
    helped: bool = False
    over: bool = False


class Scene:
    """One scene: what happens, what is needed, and how well that was met."""

    def __init__(self, data: dict[str, Any]):
        self.kind, self.seed = KINDS[data["kind"]], data["seed"]
        rng = random.Random(self.seed)
        names = rng.sample(self.kind.things, len(self.kind.things))
        verbs = list(self.kind.troubles)
        self.waiting = [Thing(name, rng.choice(verbs)) for name in names]
        self.at, self.other = self.waiting.pop(), self.waiting.pop()
        self.point = self.refused = self.right = 0
        self.counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
        self._go_on()

    @property
    def over(self) -> bool:
        return self.point == POINTS

    @property
    def sound(self) -> bool:
        return self.refused < PATIENCE

    @property
    def stuck(self) -> bool:
        return self.at.signs > 1 and not self.at.over

    @property
    def need(self) -> str:
        """The task that is wanted now, or ''."""
        return self.at.verb if self.stuck and self.sound and self.activity != "call" else ""

    def look(self) -> str:
        """The event, what the user does, and how the desk is set: all that the agent is told."""
        again = " again" if self.stuck else ""
        return f"{self.at.name}: {self.event}{again}. {self.activity}{'' if self.sound else ', sound off'}"

    def legend(self) -> str:
        return ". ".join(f"{sign}: {verb}" for verb, (sign, _) in self.kind.troubles.items())

    def decide(self, offer: str) -> bool:
        """What the user makes of an offer, or of '' for silence: whether it is accepted. Then comes the next event."""
        named = [verb for verb in self.kind.troubles if verb in words(offer)]
        accepted = bool(self.need) and named == [self.need] if offer else not self.need
        self.counts[("tp" if accepted else "fp") if offer else ("tn" if accepted else "fn")] += 1
        self.at.helped, self.refused = bool(offer) and accepted, self.refused + (bool(offer) and not accepted)
        self.right, self.point = int(accepted), self.point + 1
        if not self.over:
            self._go_on()
        return accepted

    def _go_on(self) -> None:
        """The next event; chance depends on the scene and the point, and not on what was done."""
        rng = random.Random(f"{self.seed} {self.point}")
        switch, chance, self.activity = rng.random(), rng.random(), rng.choice(ACTIVITIES)
        if self.at.over:
            self.at = self.waiting.pop()
        if switch < SWITCH and not self.at.helped:
            self.at, self.other = self.other, self.at
        thing, (sign, end) = self.at, self.kind.troubles[self.at.verb]
        if thing.helped or (thing.signs and chance < ALONE):
            self.event, thing.over = end, True
        elif thing.signs or chance < TROUBLE:
            self.event, thing.signs = sign, thing.signs + 1
        else:
            self.event = rng.choice(self.kind.calm)

    def confusion(self) -> dict[str, int]:
        """The four counts if the agent is silent from now on; they add up to POINTS."""
        rest = copy.deepcopy(self)
        while not rest.over:
            rest.decide("")
        return rest.counts

    def reward(self) -> float:
        counts = self.confusion()
        return 2 * counts["tp"] / (2 * counts["tp"] + counts["fp"] + counts["fn"] or 1)


def eager(scene: Scene, rng: random.Random) -> str:
    """What somebody offers who sees what the agent sees and does not know the need."""
    sign = scene.event == scene.kind.troubles[scene.at.verb][0]
    if rng.random() >= (0.8 if sign else 0.25):
        return ""
    return scene.at.verb if sign and rng.random() < 0.8 else rng.choice(list(scene.kind.troubles))


# -- what is said ----------------------------------------------------------------------------------------------------


def deed(offer: str, n: int) -> Message:
    """The call that makes an offer, or '' the one that is silent."""
    call = ToolCall("propose", {"task": offer}, f"call_{n}") if offer else ToolCall("wait", {}, f"call_{n}")
    return Message("assistant", "", (call,))


def first(scene: Scene) -> list[Message]:
    """What the agent is told of the desk and of the first event."""
    return [Message("system", f"{SYSTEM} {scene.legend()}."), Message("user", scene.look())]


def reply(scene: Scene, offer: str) -> str:
    """Make the decision; what the agent is told then."""
    accepted = scene.decide(offer)
    told = ["yes" if accepted else "no"] if offer else []
    return "\n".join([*told, "end" if scene.over else scene.look()])


def label(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A question about one decision in a scene, and its answer; needs and not, yes and no are about equally frequent.

    The decisions before are those of somebody eager.
    """
    scene = Scene(data)
    said, states = first(scene), list[tuple[Scene, list[Message]]]()
    while not scene.over:
        states.append((copy.deepcopy(scene), list(said)))
        offer = eager(scene, rng)
        said += [deed(offer, len(said)), Message("tool", reply(scene, offer))]
    needed = rng.random() < 0.5
    now, before = rng.choice([state for state in states if bool(state[0].need) == needed] or states)
    right = rng.random() < 0.5
    offer = now.need if right else rng.choice([x for x in ("", now.at.verb, *now.kind.troubles) if x != now.need])
    return {"question": question([*before, deed(offer, 0)]), "answer": YES if right else NO}


class ProactiveSession(ToolSession):
    """One scene, or one question."""

    def __init__(self) -> None:
        super().__init__(max_steps=2 * POINTS)  # calls that are wrong are no decisions, and cost turns

    async def begin(self, task: Task, seed: int) -> Observation:
        self.data = task.data
        if "answer" in self.data:
            self.tools = []
            return Observation((Message("user", self.data["question"]),))
        self.tools, self.scene = [PROPOSE, WAIT], Scene(self.data)
        return Observation(tuple(first(self.scene)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        text = reply(self.scene, arguments["task"].strip() or "?" if name == "propose" else "")
        self.done = self.scene.over
        return text

    async def step(self, action: Message | np.ndarray) -> Step:
        step = await super().step(action)
        if "answer" in self.data:
            return step
        return dataclasses.replace(
            step, info=step.info | {"scores": {**self.scene.confusion(), "right": float(self.scene.right)}}
        )

    async def finish(self, answer: str) -> float:
        if "answer" in self.data:
            return float(words(answer) == words(self.data["answer"]))
        return self.scene.reward()

    def current_reward(self) -> float:
        """What is left counts as silence; a question without an answer earns nothing."""
        return 0.0 if "answer" in self.data else self.scene.reward()

    def save(self) -> Any:
        return copy.deepcopy(self.scene) if "question" not in self.data else None

    def load(self, state: Any) -> None:
        self.scene = copy.deepcopy(state)
