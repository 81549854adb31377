"""TextWorld: text games made on demand, from collecting a coin to cooking by a recipe, played on a real Z-machine.

Côté et al. 2018, "TextWorld: A Learning Environment for Text-based Games", arXiv:1806.11532;
https://github.com/microsoft/TextWorld, MIT; Jericho, which runs the games, is under the GPL 2.

The games are those of the suite's four challenge makers. A task is a maker, a level and a seed; its game is made and
compiled the first time it is played (about 2 s of processor time) and then kept. A step's reward is the score that it
adds, as a share of the game's maximum.

Departures: the levels are three of each maker's many. The objective names the last action only, where the makers of
`coin_collector` and `treasure_hunter` would tell the whole way there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.core.cache import cache_directory
from etude.core.errors import PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, acts
from etude.environments.hosted import GameSession, Told
from etude.protocols import Task
from etude.tools.process import Crew
from etude.trajectory import Message

VERSION = "1.7.0"
INSTALL = "pip install 'etude[textworld]'"
SIZES = {"train": 1000, "dev": 200, "test": 200}  # of each challenge
SEEDS = {"train": 0, "dev": 1_000_000, "test": 2_000_000}  # the first of each split

COOKING = {"drop": False, "recipe_seed": 0}
# challenge -> its skills, and the maker's settings at each level
CHALLENGES: dict[str, tuple[tuple[str, ...], list[dict[str, Any]]]] = {
    "coin_collector": (("exploration", "navigation"), [{"level": 3}, {"level": 105}, {"level": 210}]),
    "treasure_hunter": (("exploration", "search"), [{"level": 4}, {"level": 14}, {"level": 24}]),
    "simple": (
        ("following instructions", "manipulation"),
        [{"rewards": "dense", "goal": "detailed"}, {"rewards": "dense", "goal": "brief"},
         {"rewards": "sparse", "goal": "brief"}],
    ),
    "cooking": (
        ("following a recipe", "navigation"),
        [{"recipe": 1, "take": 1, "go": 1, "open": False, "cook": False, "cut": False, **COOKING},
         {"recipe": 2, "take": 2, "go": 6, "open": True, "cook": True, "cut": False, **COOKING},
         {"recipe": 3, "take": 3, "go": 12, "open": True, "cook": True, "cut": True, **COOKING}],
    ),
}  # fmt: skip
COOKING_SPLITS = {"train": "train", "dev": "valid", "test": "test"}  # of foods and ways to prepare them
MACHINE = {"quit", "q", "restart", "restore", "save", "undo", "script", "transcript"}  # what the machine itself obeys
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
look; inventory; go north; open door; unlock door with key; examine table; take coin; take key from box; put apple on \
table; insert apple into box; drop apple; cook apple with oven; slice, dice or chop apple with knife; prepare meal; \
eat meal."""


@part
@dataclass(eq=False)
class textworld(Tasks):
    """Games of TextWorld's challenge makers.

    A task's difficulty is its level, 0 to 2. Raises PartError for an unknown challenge or level, MissingExtra where the
    suite is not installed.
    """

    challenges: list[str] | str | None = None
    """Of coin_collector, treasure_hunter, simple, cooking; None for all, in turn."""
    level: int | None = None
    """0, 1 or 2: only tasks of this level; None for all, in turn."""
    hints: bool = True
    """Whether each answer lists the commands that are possible."""
    max_steps: int | None = None
    """Messages after which the episode ends with what it has; None for no limit."""
    name = "textworld"
    reward_range = (0.0, 1.0)
    at_once = 16

    def __post_init__(self) -> None:
        self.chosen = [self.challenges] if isinstance(self.challenges, str) else self.challenges or list(CHALLENGES)
        for challenge in self.chosen:
            if challenge not in CHALLENGES:
                raise PartError(f"environments/textworld: no challenge {challenge!r}; {suggest(challenge, CHALLENGES)}")
        if self.level not in (None, 0, 1, 2):
            raise PartError(f"environments/textworld: level is {self.level!r}; give 0, 1 or 2, or None for all")
        for package in ("textworld", "jericho"):
            if importlib.util.find_spec(package) is None:
                raise missing_extra("textworld", package)
        worker = {
            "target": f"{__name__}:Player",
            "settings": {"hints": self.hints},
            "env": {"PYTHONHASHSEED": "0"},  # the makers walk through sets: without it a seed gives several games
            "seconds": 300,  # to make a large game on a busy machine
        }
        self.crew, self.solvers = Crew(**worker, size=self.at_once), Crew(**worker, size=1)

    def tasks(self, split: str) -> LazyTasks:
        """1000 tasks of each challenge in `train`, 200 in `dev` and in `test`. Raises PartError for another split."""
        if split not in SIZES:
            raise PartError(f"environments/textworld has no split {split!r}; {suggest(split, SIZES)}")
        return LazyTasks(lambda i: self._make(split, i), SIZES[split] * len(self.chosen))

    def _make(self, split: str, i: int) -> Task:
        challenge, n = self.chosen[i % len(self.chosen)], i // len(self.chosen)
        skills, levels = CHALLENGES[challenge]
        level = n % len(levels) if self.level is None else self.level
        settings = dict(levels[level])
        if challenge == "cooking":
            settings["split"] = COOKING_SPLITS[split]
        if challenge == "simple":
            settings["test"] = split == "test"
        seed = SEEDS[split] + n
        data = {"challenge": challenge, "settings": settings, "seed": seed}
        identity = f"textworld/{challenge}/{level}/{seed}"
        return Task(identity, self, split, data, challenge, float(level), skills, f"textworld {VERSION}")

    def open(self) -> GameSession:
        return GameSession(self.crew, [ACT], INSTRUCTION, max_steps=self.max_steps)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The commands of the maker's own quest."""
        return acts(self.solvers.ask("solution", **task.data))


class Player:
    """Makes and plays games, in a worker process: the suite keeps random states and grammars for the whole process."""

    def __init__(self, hints: bool):
        self.hints = hints

    def begin(self, challenge: str, settings: dict[str, Any], seed: int) -> Told:
        self._start(challenge, settings, seed, admissible_commands=self.hints, objective=True, description=True)
        state = self.game.reset()
        return self._tell(state, f"{state.objective}\n\n{state.description}", 0)

    def act(self, command: str) -> Told:
        words = re.findall(r"\w+", command.lower())
        refused = MACHINE.intersection(words)
        if refused:
            return {**self.told, "text": f"{min(refused)!r} is not a command of the game."}
        line = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", command).split())  # a NUL makes the machine wait for ever
        state, score, _ = self.game.step(line)  # it reads one line
        text = state.feedback.rpartition("\n>")[0] or state.feedback  # without the prompt and the status line after it
        return self._tell(state, text, score)

    def solution(self, challenge: str, settings: dict[str, Any], seed: int) -> list[str]:
        self._start(challenge, settings, seed, policy_commands=True)
        return self.game.reset().policy_commands

    def _start(self, challenge: str, settings: dict[str, Any], seed: int, **wanted: bool) -> None:
        from textworld import EnvInfos, start  # pyright: ignore

        infos = EnvInfos(score=True, max_score=True, won=True, lost=True, **wanted)
        self.game = start(str(_made(challenge, settings, seed)), infos)

    def _tell(self, state: Any, text: str, score: float) -> Told:
        text = text.strip()
        over = state.won or state.lost
        if self.hints and not over:
            text += f"\nCommands: {'; '.join(sorted(state.admissible_commands))}"
        self.told: Told = {"text": text, "score": score / state.max_score, "over": over}
        return self.told


def _made(challenge: str, settings: dict[str, Any], seed: int) -> Path:
    """The game's file, made where it is not there yet: in $ETUDE_CACHE or ~/.cache/etude."""
    from textworld import GameOptions  # pyright: ignore
    from textworld.challenges import CHALLENGES as MAKERS  # pyright: ignore
    from textworld.generator import compile_game  # pyright: ignore

    cache = cache_directory() / f"textworld-{VERSION}"
    digest = hashlib.sha256(json.dumps([challenge, settings, seed], sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / f"{challenge}-{seed}-{digest}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(dir=cache, prefix=".")
        options = GameOptions()
        options.seeds, options.path, options.grammar.only_last_action = seed, str(Path(made, "game.z8")), True
        _, make, _ = MAKERS[f"tw-{challenge}"]
        compile_game(make(settings, options), options)
        try:
            os.rename(made, folder)  # whole or not at all; another worker may have been quicker
        except OSError:
            shutil.rmtree(made)
    return folder / "game.z8"
