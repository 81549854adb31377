"""ScienceWorld: thirty kinds of elementary-school experiment in a simulated house, from boiling to genetics.

Wang, Jansen, Côté & Ammanabrolu 2022, "ScienceWorld: Is your Agent Smarter than a 5th Grader?", arXiv:2203.07540;
https://github.com/allenai/ScienceWorld, Apache-2.0.

The agent has `act(command)`, and `valid_actions(word)`, which costs a turn but no time in the house. A step's reward is
what the suite's score rose or fell by: the subgoals that are reached, 1 for all; an irreversible mistake, such as to
focus on the wrong thing, ends the episode with score -1. Splits are the suite's own: half of a kind's variations, a
quarter, and the rest.

Departures: the suite lists all valid commands, often thousands, at every step; here they are asked for by a word that
they hold. What it draws at random is seeded, and its hashed sets keep one order, so that a task is the same house with
the same solution in every run. Its limit of 100 steps is a setting, for some of its solutions are longer.
"""

from __future__ import annotations

import importlib.util
import shutil
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from etude.core.errors import MissingExtra, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, acts
from etude.environments.hosted import GameSession, Told
from etude.protocols import SPLITS, Task
from etude.tools.process import Crew
from etude.trajectory import Message

INSTALL = "pip install 'etude[scienceworld]' && apt-get install default-jre-headless"
# all objects hash alike: heat and growth follow the order of hashed sets, which else differs between Java machines
JAVA = "-Xmx1g -XX:+UseSerialGC -XX:+UnlockExperimentalVMOptions -XX:hashCode=2"
SIMPLIFICATIONS = (
    "easy", "noElectricalAction", "openContainers", "openDoors", "selfWateringFlowerPots", "teleportAction",
)  # fmt: skip

# kind -> topic, variations, commands in the suite's solution of the first variation
KINDS: dict[str, tuple[str, int, int]] = {
    "boil": ("matter", 30, 39),
    "change-the-state-of-matter-of": ("matter", 30, 26),
    "chemistry-mix": ("chemistry", 32, 25),
    "chemistry-mix-paint-secondary-color": ("chemistry", 36, 21),
    "chemistry-mix-paint-tertiary-color": ("chemistry", 36, 30),
    "find-animal": ("classification", 300, 10),
    "find-living-thing": ("classification", 300, 10),
    "find-non-living-thing": ("classification", 300, 5),
    "find-plant": ("classification", 300, 10),
    "freeze": ("matter", 30, 26),
    "grow-fruit": ("biology", 126, 77),
    "grow-plant": ("biology", 126, 63),
    "identify-life-stages-1": ("biology", 14, 41),
    "identify-life-stages-2": ("biology", 10, 16),
    "inclined-plane-determine-angle": ("forces", 168, 55),
    "inclined-plane-friction-named-surfaces": ("forces", 1386, 51),
    "inclined-plane-friction-unnamed-surfaces": ("forces", 162, 178),
    "lifespan-longest-lived": ("biology", 125, 6),
    "lifespan-longest-lived-then-shortest-lived": ("biology", 125, 7),
    "lifespan-shortest-lived": ("biology", 125, 6),
    "measure-melting-point-known-substance": ("measurement", 436, 27),
    "measure-melting-point-unknown-substance": ("measurement", 300, 32),
    "melt": ("matter", 30, 34),
    "mendelian-genetics-known-plant": ("biology", 120, 145),
    "mendelian-genetics-unknown-plant": ("biology", 480, 146),
    "power-component": ("electricity", 20, 11),
    "power-component-renewable-vs-nonrenewable-energy": ("electricity", 20, 26),
    "test-conductivity": ("electricity", 900, 21),
    "test-conductivity-of-unknown-substances": ("electricity", 600, 21),
    "use-thermometer": ("measurement", 540, 22),
}
TOOLS = [
    {
        "name": "act",
        "description": "do something in the house",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "such as: open door to kitchen"}},
            "required": ["command"],
        },
    },
    {
        "name": "valid_actions",
        "description": "list the commands that are possible now and hold a word, such as a thing or a verb",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
]
INSTRUCTION = """You do an experiment in a house: act with one command at a time until the task is done. Commands are \
look around; look at, look in, open, close, activate, deactivate, pick up, put down, pour X in Y, dunk X in Y, mix, \
move X to Y, use X on Y, connect X to Y, disconnect, read, eat, flush; go to kitchen; inventory; task; wait (ten \
steps); wait1 (one step); focus on X, which says that X is what the task is about, and only when it asks for it. \
Where a command is ambiguous, answer with the number of what you meant."""


@part
@dataclass(eq=False)
class scienceworld(Tasks):
    """The experiments of ScienceWorld.

    A task's difficulty is the number of commands in the suite's own solution of its kind's first variation.
    Raises PartError for an unknown kind or simplification, MissingExtra where the suite or Java is not installed.
    """

    kinds: list[str] | str | None = None
    """Such as `boil`, `find-plant` or `test-conductivity`; None for all thirty."""
    simplifications: list[str] | str | None = None
    """Of openDoors, openContainers, teleportAction, selfWateringFlowerPots, noElectricalAction; or `easy` for all."""
    max_steps: int | None = None
    """Messages after which the episode ends with what it has; None for no limit."""
    name = "scienceworld"
    reward_range = (-1.0, 1.0)
    at_once = 8
    """A Java machine each, of 200 to 500 MB."""

    def __post_init__(self) -> None:
        self.chosen = _named("kind", self.kinds or list(KINDS), KINDS)
        simpler = _named("simplification", self.simplifications or [], SIMPLIFICATIONS)
        electric = [kind for kind in self.chosen if "power-component" in kind or "conductivity" in kind]
        if electric and "noElectricalAction" in simpler:
            raise PartError(
                f"environments/scienceworld: {electric[0]} cannot be done with noElectricalAction; drop one"
            )
        self.simpler = ",".join(sorted(simpler))
        if importlib.util.find_spec("scienceworld") is None:
            raise missing_extra("scienceworld", "scienceworld")
        if shutil.which("java") is None:
            raise MissingExtra("Java is not installed; run:  apt-get install default-jre-headless")
        target, env = f"{__name__}:House", {"JAVA_TOOL_OPTIONS": JAVA}
        self.crew, self.solvers = Crew(target, env=env, size=self.at_once), Crew(target, env=env, size=1, seconds=600)

    def tasks(self, split: str) -> LazyTasks:
        """The suite's variations of `train`, `dev` or `test`, a kind after the other. PartError for another split."""
        if split not in SPLITS:
            raise PartError(f"environments/scienceworld has no split {split!r}; {suggest(split, SPLITS)}")
        ranges = [variations(KINDS[kind][1], split) for kind in self.chosen]
        ends = list(accumulate(map(len, ranges)))

        def make(i: int) -> Task:
            n = bisect_right(ends, i)
            return self._make(split, self.chosen[n], ranges[n][i - ends[n]])

        return LazyTasks(make, ends[-1])

    def _make(self, split: str, kind: str, variation: int) -> Task:
        data = {"kind": kind, "variation": variation, "simplifications": self.simpler}
        simpler = f"@{self.simpler}" if self.simpler else ""  # another house
        topic, _, commands = KINDS[kind]
        identity = f"scienceworld{simpler}/{kind}/{variation}"
        return Task(identity, self, split, data, kind, float(commands), (topic,), "scienceworld 1.2.3")

    def open(self) -> GameSession:
        return GameSession(self.crew, TOOLS, INSTRUCTION, max_steps=self.max_steps)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The suite's own solution. That of a genetics task takes tens of seconds to find."""
        return acts(self.solvers.ask("solution", **task.data))


def variations(count: int, split: str) -> range:
    """Which of a kind's variations are in a split.

    >>> variations(30, "train"), variations(30, "dev"), variations(30, "test")
    (range(0, 14), range(14, 21), range(21, 30))
    """
    dev, test = 2 * (count // 4), 3 * (count // 4)
    return {"train": range(dev), "dev": range(dev, test), "test": range(test, count)}[split]


def _named(what: str, names: list[str] | str, known: Iterable[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            raise PartError(f"environments/scienceworld: no {what} {name!r}; {suggest(name, known)}")
    return names


class House:
    """The simulator, in a worker process: one Java machine, one house at a time."""

    def __init__(self) -> None:
        from scienceworld import ScienceWorldEnv  # pyright: ignore

        self.suite: Any = ScienceWorldEnv()
        # the suite's own `step` also lists all valid commands, which takes far longer
        self.server: Any = self.suite.server
        # animals, genes and books are drawn from Scala's one global generator, which the suite leaves unseeded
        self.random = getattr(getattr(self.suite._gateway.jvm.scala.util, "Random$"), "MODULE$")

    def begin(self, kind: str, variation: int, simplifications: str) -> Told:
        self._load(kind, variation, simplifications, solve=False)
        look = self.server.step("look around")  # takes no time; until a step, the score is the last episode's
        return self._tell(f"{self.server.getTaskDescription()}\n\n{look}\n{self.server.freeActionInventory()}")

    def act(self, command: str) -> Told:
        return self._tell(self.server.step(command))

    def valid_actions(self, word: str) -> Told:
        found = [text for text in self.server.getValidActionObjectCombinations() if word.lower() in text.lower()]
        return self._tell("\n".join(sorted(found)) or f"No command that is possible now holds {word!r}.")

    def solution(self, kind: str, variation: int, simplifications: str) -> list[str]:
        self._load(kind, variation, simplifications, solve=True)
        return list(self.server.getGoldActionSequence())

    def _load(self, kind: str, variation: int, simplifications: str, solve: bool) -> None:
        self.random.setSeed(variation)
        self.server.load(kind, variation, simplifications, solve)

    def _tell(self, text: str) -> Told:
        score = self.server.getScore()
        return {"text": text.strip(), "score": score, "over": self.server.getCompleted() or score < 0}
