"""Sample in proportion to the reward instead of seeking its maximum: trajectory balance of a GFlowNet.

With zeta(y) = log pi(y) - log R(y), summed over the weighted tokens of an episode; a state is its whole history, so it
has one parent and P_B = 1. At pi(y) = R(y) / Z of its task, zeta = -log Z for every y, and both losses are 0:
Var-TB (`variance`), Zhang et al. 2023, arXiv:2302.05446, as in GFlowVLM, Kang et al. 2025, arXiv:2503.06514:
    L = mean over groups of the variance of zeta within the group
TB (`balance`), Malkin et al. 2022, arXiv:2201.13259, eq. 14:    L = mean_y (zeta(y) + log Z)^2,  log Z is learnt
R(y) = max(score, floor)^beta. Episodes need not be the policy's own. Weights multiply an episode's loss; their sign and
size say nothing else, so take credit/uniform.
Departures: SubTB and DB, which want the probability to stop, or a flow, of every state, are left out; log Z is one
number for all tasks, and right where they have the same sum of rewards.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.core.errors import PartError
from etude.core.parts import part
from etude.objectives.base import check_choice, episodes, figure
from etude.protocols import Batch

if TYPE_CHECKING:
    import torch

LOSSES = ("variance", "balance")


@part
@dataclass
class Gflownet:
    """Squared distance of every episode from log pi = log R - log Z."""

    loss: str = "variance"
    """`variance`, whose log Z is the group's mean, or `balance`, whose log Z is learnt."""
    floor: float = 0.01
    """Least reward; where it is small, failures are almost never sampled and their loss is large."""
    beta: float = 1.0
    """Exponent of the reward; the larger, the nearer to seeking its maximum."""
    rate: float = 100.0
    """How much faster log Z moves than the weights do."""
    scaled_log_z: Any = field(default=None, init=False, repr=False)

    needs = frozenset({"groups"})

    def __post_init__(self) -> None:
        check_choice("objectives/gflownet", "loss", self.loss, LOSSES)
        if self.floor <= 0:
            raise PartError(f"objectives/gflownet: floor={self.floor} must be above 0, for the logarithm of the reward")

    def parameters(self, width: int = 0) -> "Iterator[torch.Tensor]":
        """log Z / rate, where it is learnt."""
        import torch

        if self.loss == "balance":
            if self.scaled_log_z is None:
                self.scaled_log_z = torch.zeros((), requires_grad=True)
            yield self.scaled_log_z

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss in squared nats, and the mean of `log_z` (nats) that it was measured with."""
        if batch.score_S is None:
            raise PartError("objectives/gflownet: the batch has no scores to sample in proportion to")
        each = episodes("objectives/gflownet", batch.logprob_N, batch)
        score_E = batch.score_S.new_zeros(len(each.group_E))
        score_E[batch.episode_S] = batch.score_S
        known_E = ((each.weight_E != 0) & ~score_E.isnan()).to(each.total_E.dtype)
        log_reward_E = self.beta * score_E.nan_to_num(1.0).clamp(min=self.floor).log()
        zeta_E = each.total_E - log_reward_E.to(each.total_E.dtype)

        same_EE = (each.group_E[:, None] == each.group_E).to(zeta_E.dtype) * known_E
        count_E = same_EE.sum(1).clamp(min=1)
        log_z_E = -same_EE @ zeta_E.detach() / count_E
        if self.loss == "balance":
            (scaled,) = self.parameters()
            log_z_E = (self.rate * scaled).to(zeta_E.device, zeta_E.dtype).expand(len(zeta_E))
        share_E = known_E * each.weight_E / count_E / batch.groups
        mean = (known_E * log_z_E.detach()).sum() / batch.sequences
        return (share_E * (zeta_E + log_z_E) ** 2).sum(), {"log_z": figure(mean, batch)}
