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
    finite(score_G, credit)
    return centred(score_G), int((~np.isnan(score_G)).sum())


def finite(score_G: np.ndarray, credit: str) -> None:
    """Raise CreditError for an infinite score; NaN is unscored."""
    if np.isinf(score_G).any():
        g = int(np.isinf(score_G).argmax())
        raise CreditError(f"credit/{credit}: score {score_G[g]} of episode {g} is infinite; mend its scorer")


def centred(value_N: np.ndarray) -> np.ndarray:
    """float64 [N] minus the mean of what is no NaN; all NaN where fewer than two values could be compared."""
    known_N = ~np.isnan(value_N)
    if known_N.sum() < 2:
        return np.full(len(value_N), np.nan)
    shifted_N = value_N - value_N[known_N][0]  # so that rounding cannot turn equal values into a tiny signal
    return shifted_N - shifted_N[known_N].mean()


def scaled(value_N: np.ndarray, eps: float) -> np.ndarray:
    """float64 [N] divided by its sample standard deviation (divisor N - 1) plus eps; all NaN where that has none."""
    if (~np.isnan(value_N)).sum() < 2:
        return np.full(len(value_N), np.nan)
    return value_N / (np.nanstd(value_N, ddof=1) + eps)
