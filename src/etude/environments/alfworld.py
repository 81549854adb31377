"""ALFWorld: household tasks in text, from putting an apple on a table to cooling a mug and putting it away.

Shridhar et al. 2021, "ALFWorld: Aligning Text and Embodied Environments for Interactive Learning", arXiv:2010.03768;
https://github.com/alfworld/alfworld, MIT. The rules of the house, the words and the goals are the suite's, and so are
the 120 rooms: kitchens, living rooms, bedrooms and bathrooms with their furniture and the things that are found there.

The suite's own games are a download. Here they are made on demand: a seed draws a room, one of the six kinds of task,
and where each thing lies; a goal is never true at the start. The reward is 1 when the goal is reached. The rooms of
`dev` and of `test` are seen in no other split, as in the suite's `unseen` splits.

Departures: places are drawn and not taken from ALFRED's scenes; of a sort of furniture there are at most six, and one
where the suite's list of rooms gives no position. The rooms of each split are ours. Solutions come from what was drawn
and not from the suite's planner, which can take minutes in a kitchen.
"""

from __future__ import annotations

import importlib.util
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, acts
from etude.environments.hosted import GameSession, Told
from etude.protocols import Task
from etude.tools.process import Crew
from etude.trajectory import Message

INSTALL = "pip install 'etude[alfworld]'"
SIZES = {"train": 2000, "dev": 200, "test": 200}  # of each kind
# of each kind of room: kitchens, living rooms, bedrooms, bathrooms
ROOMS = {"train": range(1, 23), "dev": range(23, 26), "test": range(26, 31)}
HOUSE = (0, 200, 300, 400)
MOST = 6  # of one sort of furniture: to start a game takes a time that grows with the square of all
# kind -> what must be done with the thing, the furniture that it takes, and the steps: take, treat and put each thing
KINDS = {
    "pick_and_place_simple": ("", "", 2),
    "look_at_obj_in_light": ("", "", 2),
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin", 3),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave", 3),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge", 3),
    "pick_two_obj_and_place": ("", "", 4),
}
SKILLS = {"Cleanable": "cleaning", "Heatable": "heating", "Coolable": "cooling"}
ACT = {
    "name": "act",
    "description": "do something in the house",
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "string", "description": "such as: go to fridge 1"}},
        "required": ["command"],
    },
}
INSTRUCTION = """You are in a house: act with one command at a time until the task is done. Commands are \
look; inventory; go to fridge 1; open fridge 1; close fridge 1; take apple 1 from fridge 1; move apple 1 to table 1; \
examine apple 1; use desklamp 1; heat apple 1 with microwave 1; cool apple 1 with fridge 1; clean apple 1 with \
sinkbasin 1; slice apple 1 with knife 1. You can carry one thing."""


@part
@dataclass(eq=False)
class alfworld(Tasks):
    """Household tasks of ALFWorld's six kinds in its 120 rooms.

    A task's difficulty is how often a thing must be taken, treated or put: 2 to 4. Raises PartError for an unknown
    kind, MissingExtra where the suite is not installed.
    """

    kinds: list[str] | str | None = None
    """Of pick_and_place_simple, look_at_obj_in_light, pick_clean_then_place_in_recep, pick_heat_then_place_in_recep,
    pick_cool_then_place_in_recep, pick_two_obj_and_place; None for all, in turn."""
    hints: bool = True
    """Whether each answer lists the commands that are possible."""
    max_steps: int | None = None
    """Messages after which the episode ends; None for no limit."""
    name = "alfworld"
    reward_range = (0.0, 1.0)
    at_once = 16

    def __post_init__(self) -> None:
        self.chosen = [self.kinds] if isinstance(self.kinds, str) else self.kinds or list(KINDS)
        for kind in self.chosen:
            if kind not in KINDS:
                raise PartError(f"environments/alfworld: no kind {kind!r}; {suggest(kind, KINDS)}")
        for package in ("alfworld", "textworld", "fast_downward"):
            if importlib.util.find_spec(package) is None:
                raise missing_extra("alfworld", package)
        worker = {
            "target": f"{__name__}:House",
            "settings": {"hints": self.hints},
            "env": {"PYTHONHASHSEED": "0"},  # so that a house is described alike in every process
        }
        self.crew, self.solvers = Crew(**worker, size=self.at_once), Crew(**worker, size=1)

    def tasks(self, split: str) -> LazyTasks:
        """2000 tasks of each kind in `train`, 200 in `dev` and in `test`. Raises PartError for another split."""
        if split not in SIZES:
            raise PartError(f"environments/alfworld has no split {split!r}; {suggest(split, SIZES)}")
        return LazyTasks(lambda i: self._make(split, i), SIZES[split] * len(self.chosen))

    def _make(self, split: str, i: int) -> Task:
        kind, number = self.chosen[i % len(self.chosen)], i // len(self.chosen)
        treatment, _, steps = KINDS[kind]
        skills = ("search", *([SKILLS[treatment]] if treatment else []))
        data = {"kind": kind, "split": split, "number": number}
        return Task(
            f"alfworld/{kind}/{split}/{number}", self, split, data, kind, float(steps), skills, "alfworld 0.4.2"
        )

    def open(self) -> GameSession:
        return GameSession(self.crew, [ACT], INSTRUCTION, max_steps=self.max_steps)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The way of one who knows where everything is: it never searches."""
        return acts(self.solvers.ask("solution", **task.data))


class House:
    """Makes and plays the games, in a worker process: the rules run in a C library with global state."""

    def __init__(self, hints: bool):
        from alfworld.gen import constants, goal_library  # pyright: ignore

        self.hints, self.words, self.goals = hints, constants, goal_library.gdict
        folder = Path(constants.__file__).parents[1]
        self.domain, self.grammar = (Path(folder, "data", f"alfred.{kind}").read_text() for kind in ("pddl", "twl2"))
        self.layouts = folder / "gen" / "layouts"

    def begin(self, kind: str, split: str, number: int) -> Told:
        from textworld import EnvInfos  # pyright: ignore
        from textworld.envs import PddlEnv  # pyright: ignore

        problem, sentence, _ = self.problem(kind, split, number)
        grammar = self.grammar.replace("UNKNOWN GOAL", sentence)
        self.game = PddlEnv(EnvInfos(won=True, admissible_commands=True))
        self.game.load({"pddl_domain": self.domain, "pddl_problem": problem, "grammar": grammar})
        for thing in self.game._entity_infos.values():
            thing.name = _name(thing.id)
        state = self.game.reset()
        return self._tell(state, state.feedback.partition("\n\n")[2])  # without the words of welcome

    def act(self, command: str) -> Told:
        state, _, _ = self.game.step(" ".join(command.split()))
        return self._tell(state, state.feedback)

    def solution(self, kind: str, split: str, number: int) -> list[str]:
        return self.problem(kind, split, number)[2]

    def _tell(self, state: Any, text: str) -> Told:
        if self.hints and not state.won:
            text += f"\nCommands: {'; '.join(state.admissible_commands)}"
        return {"text": text, "score": float(state.won), "over": state.won}

    def problem(self, kind: str, split: str, number: int) -> tuple[str, str, list[str]]:
        """The task in PDDL, in a sentence, and in the commands that solve it."""
        rng = random.Random(f"{kind}/{split}/{number}")
        for _ in range(1000):
            drawn = self._draw(rng, kind, rng.choice(HOUSE) + rng.choice(ROOMS[split]))
            if drawn:
                return drawn
        raise EnvironmentFault(f"alfworld: no room of {split} has what {kind} number {number} needs")

    def _draw(self, rng: random.Random, kind: str, room: int) -> tuple[str, str, list[str]] | None:
        """A task of this kind in this room; None where it cannot be one."""
        furniture, found = self._room(room)
        holds = {r: self.words.VAL_RECEPTACLE_OBJECTS[r] for r in furniture}
        things = [t for t in found if any(t in held for held in holds.values())]
        lamps = [t for t in found if t in self.words.VAL_ACTION_OBJECTS["Toggleable"]]
        treatment, appliance, _ = KINDS[kind]
        targets = [t for t in things if not treatment or t in self.words.VAL_ACTION_OBJECTS[treatment]]
        light = kind == "look_at_obj_in_light"
        if not targets or (appliance and appliance not in furniture) or (light and not lamps):
            return None
        target = rng.choice(targets)
        goal = rng.choice([r for r in holds if target in holds[r]])
        starts = [r for r in holds if target in holds[r] and (light or r != goal)]  # so that nothing is done yet
        if not starts:
            return None
        lamp = rng.choice(lamps) if light else ""

        places = [f"{r}_{n}" for r, count in furniture.items() for n in range(1, count + 1)]
        wanted = 2 if kind == "pick_two_obj_and_place" else 1
        lying = {}  # thing -> where
        for thing in things:
            least = wanted if thing == target else 1
            allowed = starts if thing == target else [r for r in holds if thing in holds[r]]
            for n in range(1, rng.randint(least, least + 1) + 1):
                lying[f"{thing}_{n}"] = rng.choice([p for p in places if _sort(p) in allowed])
        open_places = [p for p in places if _sort(p) not in self.words.OPENABLE_CLASS_SET]
        lying |= {f"{one}_1": rng.choice(open_places) for one in lamps}

        taken = {f"{target}_{n}": lying[f"{target}_{n}"] for n in range(1, wanted + 1)}
        end = lying[f"{lamp}_1"] if light else f"{goal}_1"
        commands = self._way(taken, treatment, f"{appliance}_1", end, f"{lamp}_1" if light else "")
        words = {"obj": target, "recep": goal, "toggle": lamp}
        sentence = rng.choice(self.goals[kind]["templates"]).format(**{k: w.lower() for k, w in words.items()})
        goal_pddl = self.goals[kind]["pddl"].format(**words).replace("#", "-")  # closes the problem's bracket too
        return self._pddl(furniture, places, lying, holds) + goal_pddl, sentence, commands

    def _way(self, taken: dict[str, str], treatment: str, appliance: str, end: str, lamp: str) -> list[str]:
        """Commands that take each thing from where it lies, treat it, and put it at the end or light the lamp there."""
        commands: list[str] = []

        def go(place: str, use: bool) -> None:
            last = [command for command in commands if command.startswith("go ")][-1:]
            if last != [f"go to {_name(place)}"]:
                commands.append(f"go to {_name(place)}")
            opening = f"open {_name(place)}"
            if use and _sort(place) in self.words.OPENABLE_CLASS_SET and opening not in commands:
                commands.append(opening)

        for thing, place in taken.items():
            go(place, use=True)
            commands.append(f"take {_name(thing)} from {_name(place)}")
            if treatment:
                go(appliance, use=False)  # by the rules it works while closed
                verb = {"Cleanable": "clean", "Heatable": "heat", "Coolable": "cool"}[treatment]
                commands.append(f"{verb} {_name(thing)} with {_name(appliance)}")
            go(end, use=not lamp)
            commands.append(f"use {_name(lamp)}" if lamp else f"move {_name(thing)} to {_name(end)}")
        return commands

    def _room(self, room: int) -> tuple[dict[str, int], list[str]]:
        """How many of each piece of furniture a room has, and the sorts of things found there."""
        sorts, placed = (
            json.loads((self.layouts / f"FloorPlan{room}-{what}.json").read_text()) for what in ("objects", "openable")
        )
        basins = {"Sink": "SinkBasin", "Bathtub": "BathtubBasin"}  # what things lie in
        counted = Counter(basins.get(sort, sort) for sort in (key.partition("|")[0] for key in placed))
        known = set(self.words.VAL_RECEPTACLE_OBJECTS) - set(self.words.MOVABLE_RECEPTACLES)
        furniture = {sort: min(max(1, counted[sort]), MOST) for sort in sorted({*sorts, *counted} & known)}
        return furniture, sorted(set(sorts) - set(furniture))

    def _pddl(
        self, furniture: dict[str, int], places: list[str], lying: dict[str, str], holds: dict[str, set[str]]
    ) -> str:
        """All of a problem but its goal."""
        sort = {name: _sort(name) for name in [*places, *lying]}
        at = {place: f"loc_{n}" for n, place in enumerate(places, 1)}
        able = {"Heatable", "Coolable", "Cleanable", "Sliceable", "Toggleable"}
        # the rules name these sorts, whether the room has them or not
        furniture_sorts = {*furniture, "SinkBasin", "Microwave", "Fridge"}
        thing_sorts = {*map(sort.__getitem__, lying), "Knife", "ButterKnife"}
        objects = [
            "agent1 - agent",
            *(f"{name} - location" for name in ["loc_0", *at.values()]),
            *(f"{name} - receptacle" for name in places),
            *(f"{name} - object" for name in lying),
            *(f"{name}Type - rtype" for name in sorted(furniture_sorts)),
            *(f"{name}Type - otype" for name in sorted(thing_sorts)),
        ]
        facts = ["= (total-cost) 0", "atLocation agent1 loc_0"]
        for place in places:
            facts += [f"receptacleAtLocation {place} {at[place]}", f"receptacleType {place} {sort[place]}Type"]
            facts += [f"openable {place}"] if sort[place] in self.words.OPENABLE_CLASS_SET else []
        for thing, place in lying.items():
            facts += [f"objectType {thing} {sort[thing]}Type", f"inReceptacle {thing} {place}"]
            facts += [f"objectAtLocation {thing} {at[place]}"]
            ways = sorted(way for way in able if sort[thing] in self.words.VAL_ACTION_OBJECTS[way])
            facts += [f"{way.lower()} {thing}" for way in ways]
            facts += [f"pickupable {thing}"] if "Toggleable" not in ways else []
        facts += [f"canContain {r}Type {t}Type" for r, held in holds.items() for t in sorted(thing_sorts & held)]
        init = "\n".join(f"({fact})" for fact in facts)
        listed = "\n".join(objects)
        return f"(define (problem house) (:domain alfred)\n(:objects\n{listed}\n)\n(:init\n{init}\n)\n"


def _sort(name: str) -> str:
    return name.partition("_")[0]


def _name(name: str) -> str:
    """As the agent reads it: `Fridge_1` is `fridge 1`."""
    return name.lower().replace("_", " ")
