"""Outcome credit: an episode's weight is its score.

REINFORCE, Williams 1992, doi.org/10.1007/BF00992696:  w_i = r_i - b, with a constant baseline b.
With scores of 0 and 1 and b = 0 this is training on the successes alone.
Departures: none.
"""

import numpy as np

from etude.core.errors import CreditError
from etude.core.parts import part


@part
def outcome(score_G: np.ndarray, *, baseline: float = 0.0) -> np.ndarray:
    """Weight of each episode of one group, float64 [G]; broadcast to its sampled tokens.

    score_G: float64 [G], one score per episode, any unit; NaN is unscored and stays NaN.
    baseline: subtracted from every score, in the score's unit.

    Raises CreditError for an infinite score.

    >>> outcome(np.array([1.0, 0.0, np.nan]), baseline=0.25)
    array([ 0.75, -0.25,   nan])
    """
    score_G = np.asarray(score_G, dtype=np.float64)
    if np.isinf(score_G).any():
        g = int(np.isinf(score_G).argmax())
        raise CreditError(f"credit/outcome: score {score_G[g]} of episode {g} is infinite; mend its scorer")
    return score_G - baseline
