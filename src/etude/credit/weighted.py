"""Several scores in one credit, each normalised before they are added, so that none drowns the others.

GDPO, Liu et al. 2026, "Group reward-Decoupled Normalization Policy Optimization", arXiv:2601.05242:
    A_i = sum_k weight_k (r_ik - mean_k) / (std_k + eps), mean and std over the group
    w_i = (A_i - mean(A)) / (std(A) + eps), mean and std over the whole batch; the mean is 0
MO-GRPO, Ichihara et al. 2025, arXiv:2509.22047 (`batch=False`):  w_i = A_i
Departures: std is the sample standard deviation, as in credit/group.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from etude.core.errors import CreditError
from etude.core.parts import part
from etude.credit.base import deviations, scaled
from etude.trajectory import Trajectory


@part
def weighted(
    trajectories: Sequence[Trajectory], *, weights: dict[str, float], batch: bool = True, eps: float = 1e-4
) -> None:
    """Weigh all episodes of a step by their named scores; each weight goes to the episode's sampled tokens.

    weights: name of a score, mostly a scorer's, -> how much it counts.
    batch: normalise the sum once more over all episodes of the step (GDPO) or not (MO-GRPO).
    eps: added to each standard deviation, in the score's unit.

    Episodes without a score are unscored: they get no weight and count in no statistic.
    Raises CreditError for a scored episode that lacks one of the names, an infinite score and a group of one.
    """
    groups = [_sum(trajectory, weights, eps) for trajectory in trajectories]
    weight_N = np.concatenate([np.zeros(0), *groups])
    if batch:
        weight_N = scaled(weight_N, eps)
    at = 0
    for trajectory in trajectories:
        trajectory.weigh(weight_N[at : at + len(trajectory.episodes)])
        at += len(trajectory.episodes)


def _sum(trajectory: Trajectory, weights: Mapping[str, float], eps: float) -> np.ndarray:
    """float64 [G]; the weighted sum of the normalised scores of one group."""
    weight_G = np.zeros(len(trajectory.episodes))
    for name, weight in weights.items():
        for episode in trajectory.episodes:
            if episode.score is not None and name not in episode.scores:
                there = ", ".join(episode.scores) or "none"
                raise CreditError(f"credit/weighted: trajectory {trajectory.id} has no score {name!r}; it has: {there}")
        score_G = np.array([np.nan if e.score is None else e.scores[name] for e in trajectory.episodes])
        weight_G += weight * scaled(deviations(score_G, "weighted")[0], eps)
    return weight_G
