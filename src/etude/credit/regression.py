"""Reward-weighted regression: imitation in which better episodes count more.

Peters & Schaal 2007, doi.org/10.1145/1273496.1273590; as RISE has it, Qu et al. 2024, arXiv:2407.18219, eq. 4:
    w_i = exp(r_i / tau) / mean_j exp(r_j / tau)
Departures: the mean is over all scored episodes, so that equal rewards give weight 1, which is supervised fine-tuning.
"""

from collections.abc import Sequence

import numpy as np

from etude.core.errors import CreditError
from etude.core.parts import part
from etude.credit.base import finite
from etude.trajectory import Trajectory


@part
def regression(trajectories: Sequence[Trajectory], *, tau: float = 1.0) -> None:
    """Weigh all episodes; each weight goes to the episode's sampled tokens. Unscored ones get none.

    tau: temperature, in the score's unit; the smaller, the more the best count.

    Raises CreditError for an infinite score and a tau that is not above 0.
    """
    if tau <= 0:
        raise CreditError(f"credit/regression: tau={tau} must be above 0; infinity is supervised fine-tuning")
    scores = [t.score_G for t in trajectories]
    for score_G in scores:
        finite(score_G, "regression")
    score_N = np.concatenate([np.zeros(0), *scores])
    if np.isnan(score_N).all():
        return
    weight_N = np.exp((score_N - np.nanmax(score_N)) / tau)
    weight_N /= np.nanmean(weight_N)
    at = 0
    for trajectory in trajectories:
        trajectory.weigh(weight_N[at : at + len(trajectory.episodes)])
        at += len(trajectory.episodes)
