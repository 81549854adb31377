"""Reasoning Gym: questions made on demand by some hundred generators, each with a checker of its own.

Stojanovski et al. 2025, "Reasoning Gym: Reasoning Environments for Reinforcement Learning with Verifiable Rewards",
arXiv:2505.24760; Apache-2.0. An answer stands between `<answer>` and `</answer>`, as the suite asks, and is judged by
the generator's own `score_answer`, which gives part of the reward for some wrong answers: 0.01 for any text at all is
usual. An answer without the tags earns 0.

Left out by default, though they can be named: boxnet, graph_color, propositional_logic, rubiks_cube and rush_hour,
which come without a solution, and game_of_life_halting, whose checker is content with any answer. `composite`, which
mixes the others, is no generator.

Some checkers evaluate the answer as an expression, which may take for ever, so they run in worker processes: an answer
on which the checker fails, or that it does not judge in time, earns 0. Four run it as Python, by which it could read
the solution; here they take literals alone. Five give it to SymPy's `parse_expr`, which is Python again; here they take
numbers, letters, operators and the names of common functions.
"""

import ast
import base64
import json
import os
import pickle
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.tools.process import Crew
from etude.trajectory import Message

INSTALL = "pip install 'etude[reasoning-gym]'"
UNSOLVED = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
UNJUDGED = {"game_of_life_halting"}
EVALUATED = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}  # answers, by `eval`
PARSED = {"countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "intermediate_integration"}
FUNCTIONS = {"exp", "log", "ln", "sqrt", "pi", "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan"}
FUNCTIONS |= {"sinh", "cosh", "tanh", "Abs"}
FIRST_SEED = {"train": 0, "dev": 10**9, "test": 2 * 10**9}
UNORDERED = {"isomorphic_strings", "polynomial_multiplication", "ransom_note", "word_ladder"}  # see `settled`
BATCH = 50  # questions that `settled` makes at once
CHUNK = 1000  # questions of one data set; in some generators a question depends on how many there are


@part
@dataclass(eq=False)
class reasoning_gym(Tasks):
    """Questions of chosen generators in turn; single answers, no tools.

    Making a question takes a millisecond with most generators, but seconds with futoshiki, knight_swap or puzzle24, and
    minutes with sokoban at level 0.
    """

    names: list[str] | str = ""
    """Generators, such as `chain_sum` or `[chain_sum, sudoku]`; by default all that have a solution and a judge."""
    level: int | None = None
    """Step of the suite's curriculum for all attributes of a generator, from 0; the highest where it has fewer. By
    default, and for the generators without a curriculum, the suite's own settings."""
    size: int = 2000
    """Tasks in the split `train`; `dev` and `test` have a tenth."""
    name = "reasoning_gym"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        names = [self.names] if isinstance(self.names, str) and self.names else list(self.names)
        for name in names:
            if name not in generators():
                raise PartError(f"environments/reasoning_gym: no generator {name!r}; {suggest(name, generators())}")
        if self.level is not None and self.level < 0:
            raise PartError(f"environments/reasoning_gym: level is {self.level!r}; give 0 or more")
        self.names = names or [name for name in generators() if name not in UNSOLVED | UNJUDGED]
        self.crew = Crew("etude.environments.reasoning_gym:Checker", size=2, seconds=20)

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in FIRST_SEED:
            raise PartError(f"environments/reasoning_gym has no split {split!r}; {suggest(split, FIRST_SEED)}")
        return LazyTasks(lambda i: self._make(split, i), self.size if split == "train" else self.size // 10)

    def _make(self, split: str, i: int) -> Task:
        n, which = divmod(i, len(self.names))
        name = self.names[which]
        chunk, place = divmod(n, CHUNK)
        seed = FIRST_SEED[split] + chunk * CHUNK
        level = "" if self.level is None else f"@{self.level}"
        return Task(
            id=f"reasoning_gym/{name}{level}/{split}/{n}",
            environment=self,
            split=split,
            data={"name": name, "entry": question(name, self.level, seed, place)},
            domain=dataset(name, self.level, seed).category,
            difficulty=float(self.level or 0),
            skills=(name,),
            provenance="reasoning-gym",
        )

    def open(self) -> "ReasoningSession":
        return ReasoningSession(self.crew)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The generator's own answer. Raises EnvironmentFault where it gives none."""
        answer = task.data["entry"]["answer"]
        if answer is None:
            raise EnvironmentFault(f"{task.id}: generator {task.data['name']!r} gives no solution")
        return [Message("assistant", f"<answer>{answer}</answer>")]


def _package() -> Any:
    try:
        import reasoning_gym  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise missing_extra("reasoning-gym", "reasoning-gym") from error
    return reasoning_gym


@cache
def generators() -> list[str]:
    return sorted(set(_package().factory.DATASETS) - {"composite"})


@lru_cache(maxsize=256)
def dataset(name: str, level: int | None, seed: int) -> Any:
    """The suite's data set; its n-th question follows from its seed and n."""
    factory = _package().factory
    if level is None or not factory.has_curriculum(name):
        return factory.create_dataset(name, seed=seed, size=CHUNK)
    curriculum = factory.create_curriculum(name)
    curriculum.set_global_level(level)
    config = curriculum.generate_configuration({"seed": seed, "size": CHUNK})
    return factory.DATASETS[name][0](config)


def question(name: str, level: int | None, seed: int, place: int) -> dict[str, Any]:
    """The question at a place of a data set, and its answer; the same in every run."""
    if name in UNORDERED:
        return settled(name, level, seed, place // BATCH)[place % BATCH]
    return drawn(name, level, seed, place)


def drawn(name: str, level: int | None, seed: int, place: int) -> dict[str, Any]:
    """As above; some generators draw from the global random state, which is left as it was."""
    questions, before = dataset(name, level, seed), (random.getstate(), np.random.get_state())
    random.seed(seed + place)
    try:
        return questions[place]
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@lru_cache(maxsize=64)
def settled(name: str, level: int | None, seed: int, batch: int) -> list[dict[str, Any]]:
    """A batch of questions of a generator that draws from sets of texts, whose order is another in every process: they
    are made in one where it is fixed."""
    program = (
        "import json, pickle, sys; out, sys.stdout = sys.stdout.buffer, sys.stderr\n"
        "from etude.environments.reasoning_gym import drawn\n"
        "asked, first, count = json.loads(sys.argv[1])\n"
        "pickle.dump([drawn(*asked, place) for place in range(first, first + count)], out)"
    )
    asked = json.dumps([[name, level, seed], batch * BATCH, BATCH])
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program, asked], env=env, capture_output=True)
    if run.returncode:
        raise EnvironmentFault(f"generator {name!r} failed: {run.stderr.decode(errors='replace')[-500:]}")
    return pickle.loads(run.stdout)


class Checker:
    """What a worker process holds."""

    def __init__(self) -> None:
        generators()  # the import takes seconds, which are not the first answer's

    def score(self, name: str, answer: str, entry: str) -> float:
        """entry: pickled, in base64; JSON would make other types of what is in it."""
        judge = dataset(name, None, 0)
        if name in EVALUATED:
            vars(sys.modules[type(judge).__module__])["eval"] = ast.literal_eval
        if name in PARSED and not is_formula(answer):
            return 0.0
        try:
            return float(judge.score_answer(answer, pickle.loads(base64.b64decode(entry))))
        except Exception:  # what a checker cannot read is no right answer
            return 0.0


def is_formula(text: str) -> bool:
    """Whether a text holds nothing that Python could do besides calculating.

    >>> is_formula("x**2/2 - exp(-3.5*x) + C"), is_formula("eval(chr(95))"), is_formula("x.diff"), is_formula("'a'")
    (True, False, False, False)
    """
    plain = re.fullmatch(r"[\w\s+\-*/^()=.×÷·]*", text) and "_" not in text and not re.search(r"\.\s*[^\W\d]", text)
    return bool(plain) and all(len(name) == 1 or name in FUNCTIONS for name in re.findall(r"[^\W\d]+", text))


class ReasoningSession(ToolSession):
    """One question."""

    def __init__(self, crew: Crew):
        super().__init__()
        self.crew = crew

    async def begin(self, task: Task, seed: int) -> Observation:
        from reasoning_gym.utils import SYSTEM_PROMPTS  # pyright: ignore[reportMissingImports]

        self.data = task.data
        return Observation(
            (Message("system", SYSTEM_PROMPTS["default"]), Message("user", task.data["entry"]["question"]))
        )

    async def finish(self, answer: str) -> float:
        from reasoning_gym.utils import extract_answer  # pyright: ignore[reportMissingImports]

        given = extract_answer(answer)
        if not given:
            return 0.0
        entry = base64.b64encode(pickle.dumps(self.data["entry"])).decode()
        worker = await self.crew.hire()
        try:
            return await worker.call("score", name=self.data["name"], answer=given, entry=entry)
        except EnvironmentFault:
            if worker.alive:
                raise
            return 0.0  # the answer was too much for the checker
        finally:
            self.crew.release(worker)

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: nothing, for it has no answer yet."""
        return 0.0
