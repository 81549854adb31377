"""Kahneman-Tversky optimisation: each episode is desirable (weight > 0) or undesirable (weight < 0), without a pair.

Ethayarajh et al. 2024, arXiv:2402.01306, with s(y) = log pi(y) - log pi_ref(y) over the episode's weighted tokens:
    L = mean_y lambda_y (1 - v(y)),   v(y) = sigmoid(beta (s(y) - z)) if desirable, sigmoid(beta (z - s(y))) if not,
    lambda_y = `desirable` or `undesirable`, times |weight|
z, held constant, stands for KL(pi || pi_ref): what an answer gains on average, from which gains and losses are counted.
Departures: the paper estimates z from answers paired with other prompts of the batch. Here it is max(0, mean of s) over
the other weighted episodes of the same trajectory, which answer the same prompt; an episode that is alone has z = 0.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.core.errors import PartError
from etude.core.parts import part
from etude.objectives.base import episodes, figure
from etude.protocols import Batch

if TYPE_CHECKING:
    import torch


@part
@dataclass(frozen=True)
class KTO:
    """Loss of every weighted episode by how far it is on the right side of what answers gain on average."""

    beta: float = 0.1
    """Scale of the log-ratios; the larger, the sooner a gain counts as enough."""
    desirable: float = 1.0
    """Factor of desirable episodes; where they are fewer, raise it."""
    undesirable: float = 1.0
    """Factor of undesirable episodes."""

    needs = frozenset({"groups", "reference"})

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss; per episode the share on its side of z (`accuracy`) and mean z (`kl`, nats)."""
        if batch.reference_logprob_N is None:
            raise PartError("objectives/kto: the batch has no reference log-probabilities")
        each = episodes("objectives/kto", batch.logprob_N - batch.reference_logprob_N, batch)
        ratio_E, weight_E = each.total_E, each.weight_E
        judged_E = (weight_E != 0).to(ratio_E.dtype)
        others_EE = (each.group_E[:, None] == each.group_E).to(ratio_E.dtype).fill_diagonal_(0) * judged_E
        z_E = (others_EE @ ratio_E.detach() / others_EE.sum(1).clamp(min=1)).clamp(min=0)

        gain_E = weight_E.sign() * (ratio_E - z_E)
        factor_E = weight_E.clamp(min=0) * self.desirable - weight_E.clamp(max=0) * self.undesirable
        metrics = {
            "accuracy": figure((gain_E > 0).sum() / batch.sequences, batch),
            "kl": figure((z_E * judged_E).sum() / batch.sequences, batch),
        }
        return (factor_E * (-self.beta * gain_E).sigmoid()).sum() / batch.sequences, metrics
