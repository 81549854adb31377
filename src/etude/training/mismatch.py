"""The sampler's log-probabilities are not the learner's: measured on every set of episodes, corrected where asked for.

Decoder and learner compute the same model with other batches, kernels and rounding, and tokens may have been sampled by
older weights. With learner_old, the learner's log-probability before the first update on a set of episodes, and
gap = learner_old - sampler, per token:

    truncate   Truncated importance sampling: the weight becomes  w min(exp(gap), C),  without a gradient, and the
               objective's ratio is  pi / pi_learner_old.  Yao et al. 2025, "Your Efficient RL Framework Secretly Brings
               You Off-Policy RL Training", https://fengyao.notion.site/off-policy-rl; C is `truncation`, 2 in there.
    recompute  The ratio is  pi / pi_learner_old,  and the weight stays as it is.
    none       The ratio is  pi / pi_sampler.

Departures: none. A token without a recorded log-probability has no gap, and its weight stays as it is.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from etude.core.errors import PartError, suggest
from etude.training import distributed

if TYPE_CHECKING:
    from etude.training.learner import Row

CORRECTIONS = ("none", "truncate", "recompute")


def check_correction(correction: str, truncation: float) -> None:
    """Raise PartError unless both are values that `Mismatch` knows."""
    if correction not in CORRECTIONS:
        raise PartError(f"learner: correction={correction!r}; {suggest(correction, CORRECTIONS)}")
    if truncation < 1:
        raise PartError(
            f"learner: truncation={truncation} cuts tokens on which both agree; give at least 1, 2 is usual"
        )


class Mismatch:
    """Corrects the rows of one set of episodes, and remembers how far sampler and learner were apart."""

    def __init__(self, correction: str, truncation: float):
        self.correction, self.truncation = correction, truncation
        self.gaps: list[np.ndarray] = []

    def correct(self, row: "Row", learner_N: np.ndarray) -> "Row":
        """The row as it is to be trained on; learner_N: float32 [N], the learner's log-probabilities in nats."""
        gap_N = learner_N.astype(np.float64) - row.old_logprob_N
        self.gaps.append(gap_N)
        if self.correction == "none":
            return row
        if self.correction == "recompute":
            return replace(row, old_logprob_N=learner_N)
        ratio_N = np.where(np.isnan(gap_N), 1.0, np.exp(gap_N).clip(max=self.truncation))
        return replace(row, old_logprob_N=learner_N, weight_N=(row.weight_N * ratio_N).astype(np.float32))

    def figures(self) -> dict[str, float]:
        """Over the tokens whose sampling was recorded, nothing where there are none.

        `sampler_log_ratio`: mean gap. `sampler_kl`: KL(sampler || learner) in nats per token by Schulman's estimate k3.
        `sampler_gap_max`: largest absolute gap. `sampler_truncated`: share of tokens that `truncate` cut.
        """
        gap_N = np.concatenate(distributed.gather(np.concatenate([*self.gaps, np.zeros(0)])))
        gap_N = gap_N[~np.isnan(gap_N)]
        if not len(gap_N):
            return {}
        ratio_N = np.exp(gap_N)
        figures = {
            "sampler_log_ratio": float(gap_N.mean()),
            "sampler_kl": float((ratio_N - 1 - gap_N).mean()),
            "sampler_gap_max": float(np.abs(gap_N).max()),
        }
        if self.correction == "truncate":
            figures["sampler_truncated"] = float((ratio_N > self.truncation).mean())
        return figures
