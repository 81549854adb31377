"""Solved episodes in the proportions of all tasks, so that hard tasks are not filtered away.

AgentBank, Song et al. 2024, arXiv:2410.07706: keeping only what a teacher solves skews the data towards easy tasks;
adding solutions found with the answer known (answer forcing, action search) restores the tasks' own mix.
Departures: where a bin has fewer solved episodes than its share, they are used again instead of being made anew.
"""

import dataclasses
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import log, split_episodes, value_of
from etude.trajectory import Trajectory


@part
def balance(
    trajectories: list[Trajectory],
    *,
    key: str = "difficulty",
    size: int | None = None,
    at_least: float = 1.0,
    seed: int = 0,
) -> list[Trajectory]:
    """One-episode trajectories that reached the reward, shuffled; their histogram over `key` is that of the tasks.

    key: of meta, or `task`, `environment`, `split`; what the bins are.
    size: episodes to draw; by default as many as there are different tasks.
    at_least: smallest reward that counts as solved.
    seed: of the choice and the order.

    The tasks' histogram counts every different task of the input once, solved or not. Each bin's share is met to within
    one episode; the n-th use of an episode has `#n` at the end of its id.
    Raises RecipeError for a bin in which nothing is solved: collect by the expert, too.
    """
    bins = {t.task: value_of(t, key) for t in trajectories}
    wanted = _shares(Counter(bins.values()), len(bins) if size is None else size)
    solved: defaultdict[Any, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        for one in split_episodes(trajectory):
            reward = one.episodes[0].reward
            if reward is not None and reward >= at_least:
                solved[value_of(one, key)].append(one)
    random, drawn = np.random.default_rng(seed), []
    for value, count in wanted.items():
        if count and not solved[value]:
            tasks = sum(v == value for v in bins.values())
            raise RecipeError(
                f"curation/balance: none of {tasks} tasks with {key}={value!r} is solved; add an expert's"
            )
        drawn += _draw(solved[value], count, random)
    log.info("balance: %d episodes, by %s %s", len(drawn), key, wanted)
    return [drawn[i] for i in random.permutation(len(drawn))]


def _shares(histogram: Counter[Any], size: int) -> dict[Any, int]:
    """Whole numbers that add up to size, each within one of its exact share (largest remainders)."""
    exact = {value: size * n / histogram.total() for value, n in sorted(histogram.items(), key=str)}
    whole = {value: int(share) for value, share in exact.items()}
    by_remainder = sorted(exact, key=lambda value: whole[value] - exact[value])
    for value in by_remainder[: size - sum(whole.values())]:
        whole[value] += 1
    return whole


def _draw(pool: list[Trajectory], count: int, random: np.random.Generator) -> list[Trajectory]:
    order = [i for _ in range(-(-count // len(pool)) if pool else 0) for i in random.permutation(len(pool))][:count]
    uses: Counter[int] = Counter()
    drawn = []
    for i in order:
        uses[i] += 1
        drawn.append(pool[i] if uses[i] == 1 else dataclasses.replace(pool[i], id=f"{pool[i].id}#{uses[i]}"))
    return drawn
