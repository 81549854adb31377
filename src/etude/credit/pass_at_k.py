"""Credit for the best of k: a policy is trained to succeed at least once in k attempts.

PKPO, Walder & Karkhanis 2025, "Pass@K Policy Optimization", arXiv:2505.15201, the estimator s^(loo-1), over the
sets I of k of the n episodes:  s_i = 1/C(n, k) * sum over I with i of ( max_{j in I} r_j - max_{j in I, j != i} r_j )
With the scores in rising order only sets whose best episode is i count:
    s_i = 1/C(n, k) * sum_{m < i} C(m - 1, k - 2) (r_i - r_m),  m from 1
Its gradient is that of the expected best of k, which for scores of 0 and 1 is pass@k, without bias.
Departures: w_i = n s_i, because the loss is a mean over episodes where the paper's is a sum.
"""

import math

import numpy as np

from etude.core.errors import CreditError
from etude.core.parts import part
from etude.credit.base import deviations


@part
def pass_at_k(score_G: np.ndarray, *, k: int = 2) -> np.ndarray:
    """Weight of each episode of one group, float64 [G], never below 0; broadcast to its sampled tokens.

    score_G: float64 [G], one score per episode, any unit. NaN is unscored: it stays NaN and is in no set.
    k: attempts of which the best counts, from 2 to the size of the group; for 1 use credit/rloo.

    With fewer than k scored episodes all weights are NaN.
    Raises CreditError for another k and for an infinite score.

    >>> pass_at_k(np.array([0.0, 1.0, 0.0, 1.0]), k=2)  # each success is alone in 2 of 6 sets, times 4 episodes
    array([0.        , 1.33333333, 0.        , 1.33333333])
    """
    if not 2 <= k <= len(score_G):
        raise CreditError(
            f"credit/pass_at_k: k is {k} in a group of {len(score_G)}; it goes from 2 to the group's size"
        )
    _, n = deviations(score_G, "pass_at_k")  # refuses infinite scores
    weight_G = np.full(len(score_G), np.nan)
    if n < k:
        return weight_G
    order = np.argsort(score_G)[:n]  # NaN comes last
    r_n = np.asarray(score_G, dtype=np.float64)[order]
    sets_n = np.array([math.comb(m, k - 2) for m in range(n)], dtype=np.float64)  # whose second best is the m-th
    weight_G[order] = [n / math.comb(n, k) * (sets_n[:i] @ (r_n[i] - r_n[:i])) for i in range(n)]
    return weight_G
