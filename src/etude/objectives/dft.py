"""Dynamic fine-tuning: supervised fine-tuning whose tokens are weighted by their own probability.

Wu et al. 2025, "On the Generalization of SFT", arXiv:2508.05629, eq. 9:
    L = -mean_t sg(p_t^gamma) log p_t,   p_t = pi(y_t | y_<t, x),   sg = stop-gradient
gamma = 1 is the paper's; its gradient is that of -mean_t p_t, so an improbable token no longer dominates. gamma = 0 is
SFT. Departures: the exponent gamma, and the weights w_t that every objective of etude multiplies in.
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
class DFT:
    """Cross-entropy of each sampled token times p^gamma, held constant, times its weight."""

    gamma: float = 1.0
    """Exponent of the token's probability; 1 is DFT, 0 is SFT."""
    normalise: str = "token"
    """`token`, `sequence` or `constant`; see `etude.objectives.base.normalised`."""

    needs = frozenset[str]()

    def __post_init__(self) -> None:
        check_choice("objectives/dft", "normalise", self.normalise, NORMALISERS)

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss in nats; cross-entropy per token (`nll`, nats) and mean probability (`probability`)."""
        p_N = batch.logprob_N.detach().exp()
        nll_N = -batch.logprob_N
        loss = normalised(batch.weight_N * p_N**self.gamma * nll_N, batch, self.normalise)
        return loss, {"nll": nll_N.mean().item(), "probability": p_N.mean().item()}
