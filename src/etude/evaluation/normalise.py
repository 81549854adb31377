"""Scores on one scale for all games: chance is 0, the oracle 100.

Orak, arXiv:2506.03610, after Mnih et al. 2015, "Human-level control through deep reinforcement learning",
doi.org/10.1038/nature14236:

    normalised = 100 * (score - random) / (oracle - random)

`random` and `oracle` are means of what uniformly drawn legal actions, and a world's own solutions, earned in each
domain. They were measured once, by `etude env references WORLD`, on the split `dev`, and are kept in
`data/references.json`; who plays worse than chance is below 0.
"""

import functools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.errors import EtudeError
from etude.evaluation import plays
from etude.protocols import Environment, Task
from etude.trajectory import Message

FILE = Path(__file__).parent / "data" / "references.json"
References = Mapping[str, Mapping[str, float]]
"""Domain -> `random`, `oracle`, and of how many `episodes` each is the mean."""


@functools.cache
def known(world: str) -> References:
    """The references of a world by its name; none where they were never measured."""
    return json.loads(FILE.read_text(encoding="utf-8")).get(world, {})


def normalised(score: float, reference: Mapping[str, float]) -> float:
    """A score on the scale on which chance is 0 and the oracle 100.

    >>> normalised(0.6, {"random": 0.2, "oracle": 1.0})
    50.0
    """
    return 100 * (score - reference["random"]) / (reference["oracle"] - reference["random"])


async def by_chance(world: Environment, task: Task) -> float:
    """What legal actions earn that are drawn alike. Raises EtudeError for a world that does not tell them."""
    chance = random.Random(f"chance {task.id}")
    async with plays.opened(world) as session:
        legal: Callable[[], list[Message]] | None = getattr(session, "legal", None)
        if legal is None:
            raise EtudeError(f"{world.name!r} does not tell the legal actions; its sessions need legal() -> [Message]")
        return (await plays.play(session, task, lambda tools, new: chance.choice(legal()))).reward


async def measure(world: Any, tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
    """The references of the domains of these tasks, which need a solution each."""
    earned: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"random": [], "oracle": []})
    for task in tasks:
        solution = await plays.alone(world, task, plays.scripted(world.solve(task, 0)))
        earned[task.domain]["random"].append(await by_chance(world, task))
        earned[task.domain]["oracle"].append(solution.reward)
    means = {domain: {who: float(np.mean(rewards)) for who, rewards in one.items()} for domain, one in earned.items()}
    return {domain: {**one, "episodes": len(earned[domain]["random"])} for domain, one in sorted(means.items())}


def write(world: str, references: Mapping[str, Mapping[str, float]]) -> Path:
    """Keep a world's references."""
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    FILE.write_text(json.dumps({**kept, world: references}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    known.cache_clear()
    return FILE
