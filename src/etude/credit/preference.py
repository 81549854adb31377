"""Preference credit: the best episodes of a group are chosen, the worst rejected.

Best against worst of several samples, as in Dong et al. 2024, "RLHF Workflow", arXiv:2405.07863:
    w_i = 1 if r_i = max(r),  -1 if r_i = min(r),  otherwise unweighted
The pairs of `objectives/preference` are then all (best, worst) of the group.
Departures: several episodes may share the best or the worst score; all of them are marked.
"""

import numpy as np

from etude.core.parts import part
from etude.credit.base import deviations


@part
def preference(score_G: np.ndarray) -> np.ndarray:
    """Weight of each episode of one group, float64 [G]: 1, -1 or NaN; broadcast to its sampled tokens.

    score_G: float64 [G], one score per episode, any unit. NaN is unscored and stays NaN.

    With equal scores, or fewer than two, all weights are NaN. Raises CreditError for a group of one.

    >>> preference(np.array([1.0, 0.0, 0.5, np.nan]))
    array([ 1., -1., nan, nan])
    """
    deviation_G, count = deviations(score_G, "preference")
    weight_G = np.full(len(deviation_G), np.nan)
    if count > 1 and np.nanmax(deviation_G) > np.nanmin(deviation_G):
        weight_G[deviation_G == np.nanmax(deviation_G)] = 1.0
        weight_G[deviation_G == np.nanmin(deviation_G)] = -1.0
    return weight_G
