"""Bandits in words: buttons that pay by chance, pressed through a tool; the better one is found only by trying.

The "buttons" of Schmied et al. 2025, "LLMs are Greedy Agents", arXiv:2504.16078, after Nie et al. 2024,
arXiv:2410.06238. A button's mean is drawn evenly from [0, 1]; a press pays 1 or 0 with that mean (`bernoulli`), or the
mean plus noise, cut to [0, 1] (`gaussian`). What the n-th press of a button pays follows from the task, so that all
episodes of a group meet the same luck. The episode's reward is the mean payment of its `presses`.

The expert is `ucb` (UCB1, Auer et al. 2002, doi.org/10.1023/A:1013689704352: each button once, then the largest
mean + sqrt(2 ln t / n)) or `greedy` (the largest mean so far, 0 where there is none); of equals they take any.
Departures: no context and no tic-tac-toe; no written reasoning is asked for.
"""

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Step, Task
from etude.trajectory import Message, ToolCall

EXPERTS = ("ucb", "greedy")
NOISES = ("bernoulli", "gaussian")
BUTTONS = "ABCDEFGHIJKLMNOPQRST"
PRESS = {
    "name": "press",
    "description": "press a button",
    "parameters": {"type": "object", "properties": {"button": {"type": "string"}}, "required": ["button"]},
}


@part
@dataclass(eq=False)
class bandit(Tasks):
    """Buttons A, B, … with unknown mean payment; the episode ends after a number of presses.

    >>> bandit(arms=2).tasks("test")[0].id
    'bandit/2-10-bernoulli/test/0'
    """

    arms: int = 5
    """Buttons, 2 to 20."""
    presses: int = 10
    """In one episode."""
    noise: str = "bernoulli"
    """`bernoulli` or `gaussian`."""
    deviation: float = 0.1
    """Standard deviation of gaussian noise."""
    expert: str = "ucb"
    """`ucb` or `greedy`."""
    size: int = 2000
    """Tasks in the split `train`; `dev` and `test` have a tenth."""
    name = "bandit"
    reward_range = (0.0, 1.0)
    optimal = False  # what is paid is luck, in part

    def __post_init__(self) -> None:
        if not 2 <= self.arms <= len(BUTTONS):
            raise PartError(f"environments/bandit: arms is {self.arms!r}; give 2 to {len(BUTTONS)}")
        if self.noise not in NOISES:
            raise PartError(f"environments/bandit: no noise {self.noise!r}; {suggest(self.noise, NOISES)}")
        if self.expert not in EXPERTS:
            raise PartError(f"environments/bandit: no expert {self.expert!r}; {suggest(self.expert, EXPERTS)}")

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        sizes = {"train": self.size, "dev": self.size // 10, "test": self.size // 10}
        if split not in sizes:
            raise PartError(f"environments/bandit has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        identity = f"bandit/{self.arms}-{self.presses}-{self.noise}/{split}/{i}"
        rng = random.Random(identity)
        means = [rng.random() for _ in range(self.arms)]
        pays = [[self._pay(mean, rng) for _ in range(self.presses)] for mean in means]
        data, skills = {"means": means, "pays": pays}, ("exploration",)
        return Task(identity, self, split, data, self.noise, float(self.arms), skills, "bandit.py")

    def _pay(self, mean: float, rng: random.Random) -> float:
        if self.noise == "bernoulli":
            return float(rng.random() < mean)
        return round(min(1.0, max(0.0, rng.gauss(mean, self.deviation))), 2)

    def open(self) -> "BanditSession":
        return BanditSession(self.arms, self.presses)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The presses of the expert; the seed chooses among equals."""
        rng, acts, history = random.Random(f"{task.id} {seed}"), [], list[tuple[int, float]]()
        for n in range(1, self.presses + 1):
            arm = rng.choice(best(history, self.arms, self.expert))
            pay = task.data["pays"][arm][sum(a == arm for a, _ in history)]
            history.append((arm, pay))
            acts.append(Message("assistant", tool_calls=(ToolCall("press", {"button": BUTTONS[arm]}, f"call_{n}"),)))
        return acts


def ucb(history: list[tuple[int, float]], arms: int) -> list[float]:
    """UCB1's value of each arm after these (arm, payment); infinite for one that was never tried."""
    pays: list[list[float]] = [[] for _ in range(arms)]
    for arm, pay in history:
        pays[arm].append(pay)
    return [sum(p) / len(p) + float(np.sqrt(2 * np.log(len(history)) / len(p))) if p else np.inf for p in pays]


def best(history: list[tuple[int, float]], arms: int, by: str) -> list[int]:
    """The arms that `ucb`, or `greedy`, would press next, in their order; several where they are equal."""
    if by == "ucb":
        values = ucb(history, arms)
    else:
        pays = [[pay for arm, pay in history if arm == a] for a in range(arms)]
        values = [sum(p) / len(p) if p else 0.0 for p in pays]
    return [a for a in range(arms) if values[a] == max(values)]


class BanditSession(ToolSession):
    """One episode: what each button has paid. A message without a press ends it."""

    def __init__(self, arms: int, presses: int):
        super().__init__()
        self.arms, self.presses = arms, presses

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.data, self.pressed, self.paid = [PRESS], task.data, list[int](), 0.0
        told = f"Press one of the buttons {', '.join(BUTTONS[: self.arms])}. {self.presses} presses. Earn most."
        return Observation((Message("system", told), Message("user", "Press.")))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        arm = BUTTONS[: self.arms].find(arguments["button"]) if len(arguments["button"]) == 1 else -1
        if arm < 0:
            raise ToolError(f"no button {arguments['button']!r}; there are {', '.join(BUTTONS[: self.arms])}")
        if len(self.pressed) >= self.presses:
            raise ToolError("no presses are left")
        pay = self.data["pays"][arm][self.pressed.count(arm)]
        self.pressed.append(arm)
        self.paid += pay / self.presses
        return f"{pay:g}"

    async def step(self, action: Message | np.ndarray) -> Step:
        """The reward of a step is what its presses paid, over the number of presses in an episode."""
        before = self.paid if self.actions else 0.0
        step = await super().step(action)
        if len(self.pressed) >= self.presses:
            self.done = True
        return replace(step, done=self.done, reward=self.paid - before)

    async def finish(self, answer: str) -> float:
        return 0.0  # what the presses earned was given with them

    def current_reward(self) -> float:
        """What the episode has earned."""
        return self.paid

    def save(self) -> tuple[list[int], float]:
        return list(self.pressed), self.paid

    def load(self, state: tuple[list[int], float]) -> None:
        self.pressed, self.paid = list(state[0]), state[1]
