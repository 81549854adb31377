"""Likelihood of what is marked as good, unlikelihood of what is marked as bad.

Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", arXiv:1908.04319, eq. 4; of
dialogues, Li et al. 2020, arXiv:1911.03860:
    L = -sum_{w_t > 0} w_t log p_t - alpha sum_{w_t < 0} |w_t| log(1 - p_t),   p_t = pi(y_t | y_<t, x)
Where likelihood with a negative weight falls without end, this is bounded below, and a token that is already improbable
pushes no longer.
Departures: which tokens are bad is said by the sign of their weight.
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
class Unlikelihood:
    """Cross-entropy of tokens of positive weight, and of not saying those of negative weight."""

    alpha: float = 1.0
    """Factor of the second."""
    normalise: str = "token"
    """`token`, `sequence` or `constant`; see `etude.objectives.base.normalised`."""

    needs = frozenset[str]()

    def __post_init__(self) -> None:
        check_choice("objectives/unlikelihood", "normalise", self.normalise, NORMALISERS)

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss in nats; cross-entropy per token (`nll`, nats) and mean probability of bad tokens (`bad`)."""
        p_N = batch.logprob_N.exp()
        rest_N = (-batch.logprob_N.clamp(max=-1e-6).expm1()).log()  # log(1 - p); p may be 1 in float32
        good_N, bad_N = batch.weight_N.clamp(min=0), (-batch.weight_N).clamp(min=0)
        loss_N = -good_N * batch.logprob_N - self.alpha * bad_N * rest_N
        marked = (bad_N > 0).sum().clamp(min=1)
        metrics = {"nll": -batch.logprob_N.mean().item(), "bad": (p_N[bad_N > 0].sum() / marked).item()}
        return normalised(loss_N, batch, self.normalise), metrics
