"""Which tasks a stage plays, and with which seeds: fixed by the recipe's seed, the phase and the step."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from etude.apps.work import Work
from etude.core.errors import RecipeError, suggest
from etude.protocols import Task

FIELDS = ("id", "domain", "difficulty", "skills", "provenance")  # of a task, by which it can be chosen
Chosen = Mapping[str, Sequence[Any] | Mapping[str, float]]


def stream_seed(work: Work, step: int) -> int:
    """A seed for one step of one phase."""
    return (work.seed * 1009 + work.phase) * 1_000_003 + step


def pool_of(work: Work, split: str, where: Chosen | None = None, from_data: bool = False) -> Sequence[Task]:
    """The tasks of a split whose fields have such values, and, with `from_data`, which are in the data so far.

    where: field -> values, or {least, most} for a number. Raises RecipeError where no task is left.
    """
    tasks = work.environment.tasks(split)
    for key, values in (where or {}).items():
        if key not in FIELDS:
            raise RecipeError(f"where: no field {key!r} to choose tasks by; {suggest(key, FIELDS)}")
        if isinstance(values, Mapping) and (key != "difficulty" or not values or values.keys() - {"least", "most"}):
            raise RecipeError(f"where.{key} is {dict(values)}; only difficulty may be given as {{least: 1, most: 3}}")
        tasks = [t for t in tasks if _among(getattr(t, key), values)]
    if from_data:
        there = {trajectory.task for trajectory in work.read_data()}
        tasks = [t for t in tasks if t.id in there]
    if not tasks:
        chosen = f" with where={where}, from_data={from_data}" if where or from_data else ""
        raise RecipeError(f"environment {work.environment.name!r} has no tasks in split {split!r}{chosen}")
    return tasks


def _among(value: Any, values: Sequence[Any] | Mapping[str, float]) -> bool:
    if isinstance(values, Mapping):
        return values.get("least", -math.inf) <= value <= values.get("most", math.inf)
    return any(v in values for v in value) if isinstance(value, tuple) else value in values


def draw(work: Work, pool: Sequence[Task], count: int, stream: Any) -> list[Task]:
    """Tasks of a pool: the same recipe, phase and step draw the same ones; none twice while there are enough."""
    rng = random.Random(f"{work.seed} {stream}")
    places = rng.sample(range(len(pool)), count) if count <= len(pool) else rng.choices(range(len(pool)), k=count)
    return [pool[i] for i in places]
