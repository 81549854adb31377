"""Uniform credit: every scored episode has weight 1, for objectives that read the score themselves.

w_i = 1 where episode i has a score. Departures: none.
"""

import numpy as np

from etude.core.parts import part


@part
def uniform(score_G: np.ndarray) -> np.ndarray:
    """Weight of each episode of one group, float64 [G]: 1, or NaN where it is unscored.

    score_G: float64 [G], one score per episode; only whether it is NaN is read.

    >>> uniform(np.array([0.2, np.nan, 7.0]))
    array([ 1., nan,  1.])
    """
    return np.where(np.isnan(score_G), np.nan, 1.0)
