"""Polychromic credit: sets of episodes are rewarded for being good and different at once.

Polychromic PPO, Hamid et al. 2025, "Polychromic Objectives for Reinforcement Learning", arXiv:2509.25424; the marginal
advantage of Poly-EPO, Orney et al. 2026, arXiv:2604.17654, eqs. 8, 10 and 11:
    f(S) = (mean score in S) * (different kinds in S) / n      w_i = mean over the sets S with i of f(S) - mean f
A failure can so be worth more than one more success of the same kind.
Departures: S goes through all sets of n episodes of the group instead of some, from the task's first state instead of
vines that branch within an episode. The kind of an episode is what it called or said; no model judges it.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

from etude.core.errors import CreditError
from etude.core.parts import part
from etude.credit.base import finite
from etude.trajectory import Episode, Trajectory

MOST_SETS = 100_000


@part
def polychromic(trajectory: Trajectory, *, n: int = 4, kind: Literal["tools", "calls", "text"] = "tools") -> None:
    """Weigh the episodes of one group; an unscored one stays unscored and is in no set.

    n: episodes in a set, from 1, where diversity says nothing and the weight is the score minus the group's mean, to
        one less than the group.
    kind: episodes are of one kind if they called the same `tools` in the same order, made the same `calls`, arguments
        included, or said the same `text`, calls included.

    With n scored episodes or fewer nothing is weighed. Raises CreditError for another n, for an infinite score and for
    one below 0, for which the product would prize sameness.
    """
    score_G = trajectory.score_G
    finite(score_G, "polychromic")
    if not 1 <= n < len(score_G):
        raise CreditError(
            f"credit/polychromic: n is {n} in a group of {len(score_G)}; it goes from 1 to below the group"
        )
    if (score_G < 0).any():
        raise CreditError(f"credit/polychromic: score {np.nanmin(score_G)} is below 0; use scorers from 0 up")
    scored = [g for g, score in enumerate(score_G) if not np.isnan(score)]
    weight_G = np.full(len(score_G), np.nan)
    if len(scored) > n:
        if math.comb(len(scored), n) > MOST_SETS:
            what = f"{len(scored)} episodes make {math.comb(len(scored), n)} sets of {n}"
            raise CreditError(f"credit/polychromic: {what}, more than {MOST_SETS}; take a smaller n")
        kinds = [_kind(trajectory, episode, kind) for episode in trajectory.episodes]
        sets = list(itertools.combinations(scored, n))
        advantage = _advantages(np.array([worth([score_G[g] for g in s], [kinds[g] for g in s]) for s in sets]))
        for g in scored:
            weight_G[g] = advantage[[g in s for s in sets]].mean()
    trajectory.weigh(weight_G)


def worth(scores: Sequence[float], kinds: Sequence[Hashable]) -> float:
    """f(S) of one set: mean score times the share of different kinds, in the order of the episodes or any other.

    >>> worth([1.0, 0.0], ["a", "b"])
    0.5
    """
    return math.fsum(scores) / len(scores) * len(set(kinds)) / len(kinds)


def _advantages(f: np.ndarray) -> np.ndarray:
    """Of each set, over the mean of all; they add up to 0."""
    shifted = f - f[0]  # so that rounding cannot turn equal sets into a tiny signal
    return shifted - shifted.mean()


def _kind(trajectory: Trajectory, episode: Episode, kind: str) -> Hashable:
    said = [m for m in trajectory.dialogue(episode.leaf) if m.role == "assistant"]
    if kind == "tools":
        return tuple(call.name for m in said for call in m.tool_calls)
    calls = tuple((call.name, repr(sorted(call.arguments.items()))) for m in said for call in m.tool_calls)
    return calls if kind == "calls" else (calls, tuple(m.content for m in said))
