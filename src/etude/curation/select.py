"""A small set of good and different episodes: so many in all, so many of each kind, none like another.

LIMI, Xiao et al. 2025, "Less is More for Agency", arXiv:2509.17567: few trajectories, chosen for quality and diversity,
with a share for each domain. Diversity is k-centre selection, Gonzalez 1985, doi.org/10.1016/0304-3975(85)90224-5:
    next = argmax_i min_{j chosen} distance(i, j),   distance = 1 - cosine of the words' tf-idf
Balanced over cells, it is the grid sampler of KAT-Coder, arXiv:2510.18779 (language x context x archetype).
Departures: words instead of embeddings of a model; the environment's reward instead of a person's judgement.
"""

import math
from collections import Counter, defaultdict

import numpy as np

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import log, split_episodes, value_of
from etude.trajectory import Trajectory


@part
def select(
    trajectories: list[Trajectory],
    *,
    size: int = 78,
    by: list[str] = ["domain"],  # noqa: B006 (never changed)
    quotas: dict[str, int] | None = None,
    at_least: float = 1.0,
    similarity: float = 0.95,
    seed: int = 0,
) -> list[Trajectory]:
    """One-episode trajectories, exactly `size`, cell by cell, in the order in which they were chosen.

    by: keys of meta, or `task`, `environment`, `split`; a cell is one combination of their values.
    quotas: cell (its values joined by `/`) -> how many; by default equal up to supply.
    at_least: smallest reward of what may be chosen.
    similarity: largest cosine of two chosen episodes; 1 takes repetitions too.
    seed: of the first of each cell, and of which cells get what is left of an uneven share.

    Raises RecipeError where the quotas do not add up to `size`, or there is not enough to choose from.
    """
    random = np.random.default_rng(seed)
    pool = [one for t in trajectories for one in split_episodes(t) if (one.episodes[0].reward or 0.0) >= at_least]
    cells: defaultdict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(pool):
        cells["/".join(str(value_of(one, key)) for key in by)].append(i)
    wanted = quotas if quotas is not None else _equal({c: len(own) for c, own in cells.items()}, size, random)
    if sum(wanted.values()) != size:
        raise RecipeError(f"curation/select: the quotas add up to {sum(wanted.values())}, not to size={size}")
    vector_NV = _tfidf(pool)
    nearest_N = np.full(len(pool), -1.0)  # cosine with the nearest that is chosen, of any cell
    chosen: list[int] = []
    for cell, count in wanted.items():
        for n in range(count):
            left = [i for i in cells[cell] if i not in chosen and nearest_N[i] <= similarity]
            if not left:
                raise RecipeError(
                    f"curation/select: cell {cell!r} has {n} of the {count} episodes that were asked for, of "
                    f"{len(cells[cell])} with reward >= {at_least:g}; collect more, or raise similarity={similarity:g}"
                )
            i = left[random.integers(len(left))] if not chosen else min(left, key=lambda i: (nearest_N[i], i))
            chosen.append(i)
            nearest_N = np.maximum(nearest_N, np.round(vector_NV @ vector_NV[i], 9))
    log.info("select: %d of %d episodes, by %s %s", size, len(pool), "/".join(by), dict(wanted))
    return [pool[i] for i in chosen]


def _equal(supply: dict[str, int], size: int, random: np.random.Generator) -> dict[str, int]:
    """Shares as equal as the supply allows; what does not divide evenly goes to cells drawn by chance."""
    if size > sum(supply.values()):
        raise RecipeError(f"curation/select: size={size}, and there are {sum(supply.values())} good episodes")
    order = [sorted(supply)[i] for i in random.permutation(len(supply))]
    wanted = dict.fromkeys(order, 0)
    while size:
        open_ = [cell for cell in order if wanted[cell] < supply[cell]][:size]
        for cell in open_:
            wanted[cell] += 1
        size -= len(open_)
    return wanted


def _tfidf(pool: list[Trajectory]) -> np.ndarray:
    """float64 [N, V]; what was said, called and answered, without the tools and the system's words, of length 1."""
    counts = []
    for one in pool:
        said = [m for m in one.dialogue(one.episodes[0].leaf) if m.role != "system"]
        calls = [f"{call.name} {call.arguments}" for m in said for call in m.tool_calls]
        counts.append(Counter(" ".join([*(m.content for m in said), *calls]).lower().split()))
    column = {word: v for v, word in enumerate(sorted({word for count in counts for word in count}))}
    holders = Counter(word for count in counts for word in count)
    vector_NV = np.zeros((len(pool), len(column)))
    for i, count in enumerate(counts):
        for word, times in count.items():
            vector_NV[i, column[word]] = times * (1 + math.log(len(pool) / holders[word]))
    return vector_NV / np.maximum(np.linalg.norm(vector_NV, axis=1, keepdims=True), 1e-12)
