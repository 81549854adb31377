"""Group-relative credit.

GRPO, Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.2:  w_i = (r_i - mean(r)) / (std(r) + eps)
Dr. GRPO, Liu et al. 2025, "Understanding R1-Zero-Like Training", arXiv:2503.20783 (`std=False`):  w_i = r_i - mean(r)
Departures: std is the sample standard deviation (divisor G - 1) plus eps, as in TRL; the paper leaves both open.
"""

import numpy as np

from etude.core.parts import part
from etude.credit.base import deviations, scaled


@part
def group(score_G: np.ndarray, *, std: bool = True, eps: float = 1e-4) -> np.ndarray:
    """Weight of each episode of one group, float64 [G]; broadcast to its sampled tokens.

    score_G: float64 [G], one score per episode, any unit. NaN is unscored: it stays NaN and counts in no statistic.
    std: divide by the group's standard deviation (GRPO) or not (Dr. GRPO).
    eps: added to the standard deviation, in the score's unit.

    With fewer than two scored episodes all weights are NaN. Raises CreditError for a group of one.

    >>> group(np.array([1.0, 0.0, 0.5, np.nan]), std=False)
    array([ 0.5, -0.5,  0. ,  nan])
    """
    deviation_G, _ = deviations(score_G, "group")
    return scaled(deviation_G, eps) if std else deviation_G
