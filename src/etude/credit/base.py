"""What every credit that compares episodes of a group needs."""

import numpy as np

from etude.core.errors import CreditError


def deviations(score_G: np.ndarray, credit: str) -> tuple[np.ndarray, int]:
    """float64 [G], each score minus the mean of the scored ones, and how many are scored.

    NaN (unscored) stays NaN. With a single scored episode there is nothing to compare it with, and all become NaN.
    Equal scores give exactly zero.

    Raises CreditError for a group of one and for an infinite score.
    """
    score_G = np.asarray(score_G, dtype=np.float64)
    if len(score_G) < 2:
        raise CreditError(
            f"credit/{credit} compares the episodes of a group and was given {len(score_G)}; "
            "sample a group of 2 or more, or use credit/outcome"
        )
    if np.isinf(score_G).any():
        g = int(np.isinf(score_G).argmax())
        raise CreditError(f"credit/{credit}: score {score_G[g]} of episode {g} is infinite; mend its scorer")
    scored_G = ~np.isnan(score_G)
    count = int(scored_G.sum())
    if count < 2:
        return np.full(len(score_G), np.nan), count
    shifted_G = score_G - score_G[scored_G][0]  # so that rounding cannot turn equal scores into a tiny signal
    return shifted_G - shifted_G[scored_G].mean(), count
