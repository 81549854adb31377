"""Credit that is normalised over all episodes of a step.

Hu et al. 2025, "REINFORCE++: Stabilizing Critic-Free Policy Optimization", arXiv:2501.03262:
    w_i = (A_i - mean(A)) / (std(A) + eps), mean and std over the whole batch, with A_i = r_i
REINFORCE++ with baseline (`baseline=True`):  A_i = r_i - mean of its group
Departures: every episode counts once in mean and std, not every token; the KL penalty belongs to the objective.
"""

from collections.abc import Sequence

import numpy as np

from etude.core.parts import part
from etude.credit.base import centred, deviations, finite, scaled
from etude.trajectory import Trajectory


@part
def reinforce_pp(trajectories: Sequence[Trajectory], *, baseline: bool = False, eps: float = 1e-4) -> None:
    """Weigh all episodes of a step; each weight goes to the episode's sampled tokens.

    baseline: subtract the mean of each group first, which then needs two episodes or more; without it groups of one
        will do.
    eps: added to the standard deviation, in the score's unit.

    Unscored episodes stay unscored and count in no statistic. With fewer than two scored episodes in the step nothing
    is weighed. Raises CreditError for an infinite score, and with `baseline` for a group of one.
    """
    groups = [t.score_G for t in trajectories]
    for score_G in groups:
        finite(score_G, "reinforce_pp")
    if baseline:  # the mean over the step is then 0
        deviation_N = np.concatenate([np.zeros(0), *(deviations(score_G, "reinforce_pp")[0] for score_G in groups)])
    else:
        deviation_N = centred(np.concatenate([np.zeros(0), *groups]))
    weight_N = scaled(deviation_N, eps)
    at = 0
    for trajectory in trajectories:
        trajectory.weigh(weight_N[at : at + len(trajectory.episodes)])
        at += len(trajectory.episodes)
