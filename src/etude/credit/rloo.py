"""Leave-one-out credit.

RLOO, Ahmadian et al. 2024, "Back to Basics", arXiv:2402.14740, section 2.2:  w_i = r_i - mean_{j != i} r_j
Departures: none.
"""

import numpy as np

from etude.core.parts import part
from etude.credit.base import deviations


@part
def rloo(score_G: np.ndarray) -> np.ndarray:
    """Weight of each episode of one group, float64 [G]; broadcast to its sampled tokens.

    score_G: float64 [G], one score per episode, any unit. NaN is unscored: it stays NaN and is in nobody's baseline.

    With fewer than two scored episodes all weights are NaN.
    Raises CreditError for a group of one: there is nobody to leave out.

    >>> rloo(np.array([1.0, 0.0, 0.0]))
    array([ 1. , -0.5, -0.5])
    """
    deviation_G, count = deviations(score_G, "rloo")
    return deviation_G * count / max(count - 1, 1)  # r_i - (sum - r_i)/(n - 1) = (r_i - mean) n/(n - 1)
