"""Weighted maximum likelihood: supervised fine-tuning.

L = -sum_t w_t log pi(y_t | y_<t, x) / Z, where `normalise` sets Z. Weight 1 on every assistant token is SFT; other
weights give filtered, reward-weighted or advantage-weighted imitation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.core.parts import part
from etude.objectives.base import NORMALISERS, check_choice, normalised
from etude.protocols import Batch

if TYPE_CHECKING:
    import torch


@part
@dataclass(frozen=True)
class Likelihood:
    """Cross-entropy of each sampled token times its weight."""

    normalise: str = "token"
    """`token`, `sequence` or `constant`; see `etude.objectives.base.normalised`."""

    needs = frozenset[str]()

    def __post_init__(self) -> None:
        check_choice("objectives/likelihood", "normalise", self.normalise, NORMALISERS)

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss in nats, and the unweighted cross-entropy per token (`nll`, nats)."""
        nll_N = -batch.logprob_N
        return normalised(batch.weight_N * nll_N, batch, self.normalise), {"nll": nll_N.mean().item()}
