"""TextWorldExpress: eight text games in a fast simulator, from cooking to arithmetic, each at several difficulties.

Jansen & Côté 2022, "TextWorldExpress: Simulating Text Games at One Million Steps Per Second", arXiv:2208.01174;
https://github.com/cognitiveailab/TextWorldExpress, Apache-2.0, as are the games' texts and lists of objects.

The agent has one tool, `act(command)`. A step's reward is what the game's score rose or fell by: the parts of the task
that are done, 1 for all; a wrong answer in `arithmetic`, `sorting`, `simonsays` and `peckingorder` ends the game with
score -1. Splits are the suite's own folds, which differ in seeds and, where a game has them, in objects and recipes.

Departures: the difficulty levels are ours, the hardest of a game being the suite's defaults or harder. The suite's own
solutions of `coin` and `twc` walk at random, anew at each call; here the walks are seeded and the shortest of several
is taken, so that a solution is always the same.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from typing import Any

from etude.core.errors import EnvironmentFault, MissingExtra, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, acts
from etude.environments.hosted import GameSession, Told
from etude.protocols import Task
from etude.tools.process import Crew
from etude.trajectory import Message

INSTALL = "pip install 'etude[textworld-express]' && apt-get install default-jre-headless"
FOLDS = {"train": 0, "dev": 10_000, "test": 20_000}  # the first seed of each
SEEDS = 1000  # of each fold
WALKS, TRIES = 3, 500  # where the suite walks at random: the shortest of so many that arrive, of so many at most
JAVA = "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"  # 125 MB in place of 550, for a few ms a game

# game -> its skills, and the suite's parameters at each level
GAMES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "cookingworld": (
        ("following a recipe", "navigation"),
        [
            "numLocations=1,numIngredients=1,numDistractorItems=0,includeDoors=0,limitInventorySize=0",
            "numLocations=5,numIngredients=2,numDistractorItems=5,includeDoors=0,limitInventorySize=1",
            "numLocations=11,numIngredients=3,numDistractorItems=10,includeDoors=1,limitInventorySize=1",
        ],
    ),
    "twc": (
        ("common sense", "navigation"),
        [
            "numLocations=1,numItemsToPutAway=1,includeDoors=0,limitInventorySize=0",
            "numLocations=2,numItemsToPutAway=2,includeDoors=0,limitInventorySize=0",
            "numLocations=3,numItemsToPutAway=4,includeDoors=0,limitInventorySize=0",
        ],
    ),
    "coin": (
        ("exploration", "navigation"),
        [
            "numLocations=2,numDistractorItems=0,includeDoors=0,limitInventorySize=1",
            "numLocations=5,numDistractorItems=0,includeDoors=0,limitInventorySize=1",
            "numLocations=11,numDistractorItems=0,includeDoors=1,limitInventorySize=1",
        ],
    ),
    "mapreader": (
        ("reading a map", "navigation"),
        [
            "numLocations=5,maxDistanceApart=1,maxDistractorItemsPerLocation=0,includeDoors=0,limitInventorySize=0",
            "numLocations=10,maxDistanceApart=2,maxDistractorItemsPerLocation=1,includeDoors=0,limitInventorySize=0",
            "numLocations=15,maxDistanceApart=4,maxDistractorItemsPerLocation=3,includeDoors=0,limitInventorySize=0",
        ],
    ),
    "arithmetic": (("arithmetic",), [""]),
    "sorting": (("comparing quantities",), [""]),
    "simonsays": (
        ("repetition",),
        [
            "gameLength=3,numDistractors=1",
            "gameLength=5,numDistractors=3",
            "gameLength=10,numDistractors=5",
        ],
    ),
    "peckingorder": (("following instructions",), [""]),
}
ACT = {
    "name": "act",
    "description": "do something in the game",
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "string", "description": "such as: open fridge"}},
        "required": ["command"],
    },
}
INSTRUCTION = """You play a text game: act with one command at a time until the task is done. Among the commands are \
look around; inventory; move north; open door to north; open fridge; take coin; put coin in box; read cookbook; \
examine apple; cook apple in oven; slice, dice or chop apple; prepare meal; eat meal. Not every game knows all."""


@part
@dataclass(eq=False)
class textworld_express(Tasks):
    """The games of TextWorldExpress.

    A task's difficulty is its level: 0, 1 or 2; `arithmetic`, `sorting` and `peckingorder` have level 0 only.
    Raises PartError for an unknown game or level, MissingExtra where the suite or Java is not installed.
    """

    games: list[str] | str | None = None
    """Of cookingworld, twc, coin, mapreader, arithmetic, sorting, simonsays, peckingorder; None for all, in turn."""
    level: int | None = None
    """0, 1 or 2: only tasks of this level; None for all, in turn."""
    hints: bool = True
    """Whether each answer lists the commands that the game would accept."""
    max_steps: int | None = None
    """Messages after which the episode ends with what it has; None for no limit."""
    name = "textworld_express"
    reward_range = (-1.0, 1.0)
    at_once = 16
    """A Java machine each."""

    def __post_init__(self) -> None:
        named = [self.games] if isinstance(self.games, str) else self.games or list(GAMES)
        for game in named:
            if game not in GAMES:
                raise PartError(f"environments/textworld_express: no game {game!r}; {suggest(game, GAMES)}")
        self.chosen = [game for game in named if self.level is None or self.level in range(len(GAMES[game][1]))]
        if not self.chosen:
            raise PartError(
                f"environments/textworld_express: level is {self.level!r}, which none of {', '.join(named)} has; "
                "give 0, 1 or 2"
            )
        if importlib.util.find_spec("textworld_express") is None:
            raise missing_extra("textworld-express", "textworld_express")
        if shutil.which("java") is None:
            raise MissingExtra("Java is not installed; run:  apt-get install default-jre-headless")
        worker = {
            "target": f"{__name__}:Games",
            "settings": {"hints": self.hints},
            "env": {"JAVA_TOOL_OPTIONS": JAVA},
        }
        self.crew, self.solvers = Crew(**worker, size=self.at_once), Crew(**worker, size=1)

    def tasks(self, split: str) -> LazyTasks:
        """1000 tasks of each game in each of `train`, `dev` and `test`. Raises PartError for another split."""
        if split not in FOLDS:
            raise PartError(f"environments/textworld_express has no split {split!r}; {suggest(split, FOLDS)}")
        return LazyTasks(lambda i: self._make(split, i), SEEDS * len(self.chosen))

    def _make(self, split: str, i: int) -> Task:
        game, n = self.chosen[i % len(self.chosen)], i // len(self.chosen)
        skills, levels = GAMES[game]
        level = n % len(levels) if self.level is None else self.level
        seed = FOLDS[split] + n
        data = {"game": game, "parameters": levels[level], "seed": seed, "fold": split}
        identity = f"textworld_express/{game}/{level}/{seed}"
        return Task(identity, self, split, data, game, float(level), skills, "textworld-express 1.1.0")

    def open(self) -> GameSession:
        return GameSession(self.crew, [ACT], INSTRUCTION, max_steps=self.max_steps)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The suite's own solution, always the same one."""
        return acts(self.solvers.ask("solution", **task.data))


class Games:
    """The simulator, in a worker process: one Java machine, one game at a time."""

    def __init__(self, hints: bool):
        from textworld_express import TextWorldExpressEnv  # pyright: ignore

        self.hints = hints
        self.suite: Any = TextWorldExpressEnv()
        self.java = self.suite._gateway.jvm

    def begin(self, game: str, parameters: str, seed: int, fold: str) -> Told:
        told = self._tell(self._make(game, parameters, seed, fold))
        return {**told, "text": f"{self.suite.getTaskDescription()}\n\n{told['text']}"}

    def act(self, command: str) -> Told:
        # as the suite's own `step` without its history of everything, which is not read here
        return self._tell(self.suite.server.stepJSON(command))

    def solution(self, game: str, parameters: str, seed: int, fold: str) -> list[str]:
        walkers = {"coin": "CoinGoldAgent", "twc": "TWCGoldAgent"}
        if game not in walkers:
            self._make(game, parameters, seed, fold, solve=True)
            return list(self.suite.server.getGoldActionSequence())
        paths: list[list[str]] = []
        for n in range(TRIES):
            if len(paths) == WALKS:
                break
            self._make(game, parameters, seed, fold)
            walker = getattr(self.java.textworldexpress.goldagent, walkers[game])(self.suite.server.game())
            walked = walker.mkGoldPath(self.java.scala.util.Random(n))  # (whether it got there, commands)
            paths += [list(walked._2)] if walked._1 else []
        if not paths:
            raise EnvironmentFault(f"{game} {parameters}, seed {seed}: none of {TRIES} walks solved it")
        return min(paths, key=len)

    def _make(self, game: str, parameters: str, seed: int, fold: str, solve: bool = False) -> str:
        problem = self.suite.server.load(game, parameters)
        if problem:
            raise EnvironmentFault(f"textworld-express cannot load {game} with {parameters!r}: {problem}")
        return self.suite.server.generateNewGameJSON(seed, fold, solve)

    def _tell(self, answer: str) -> Told:
        state: dict[str, Any] = json.loads(answer)
        text = state["observation"].strip()
        if self.hints:
            text += f"\nCommands: {'; '.join(sorted(state['validActions']))}"  # the suite's order differs between runs
        over = state["score"] >= 1 or state["tasksuccess"] or state["taskfailure"]
        return {"text": text, "score": state["score"], "over": over}
