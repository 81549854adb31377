"""Preference: within a group, raise the chosen episodes (weight > 0) over the rejected ones (weight < 0).

With s(y) = log pi(y) - log pi_ref(y), summed over the weighted tokens of an episode, the loss of a pair is
DPO, Rafailov et al. 2023, arXiv:2305.18290, eq. 7 (`sigmoid`):    -log sigmoid(beta (s(w) - s(l)))
    cDPO, Mitchell 2023 (`smoothing` e):    (1 - e) L(w, l) + e L(l, w)
IPO, Azar et al. 2023, arXiv:2310.12036, eq. 17 (`ipo`):    (s(w)/|w| - s(l)/|l| - 1/(2 beta))^2
SLiC-HF, Zhao et al. 2023, arXiv:2305.10425 (`hinge`):    max(0, 1 - beta (s(w) - s(l)))
and without a reference, with p(y) = log pi(y) / |y|,
SimPO, Meng et al. 2024, arXiv:2405.14734, eq. 6 (`simpo`):    -log sigmoid(beta (p(w) - p(l)) - margin)
ORPO, Hong et al. 2024, arXiv:2403.07691, eq. 6 (`orpo`):    -p(w) - beta log sigmoid(o(w) - o(l)),
    o(y) = p(y) - log(1 - exp p(y))
The loss is the mean over groups of the mean over a group's pairs, each pair times (weight(w) - weight(l)) / 2.
Departures: IPO's log-ratios are means over tokens, as in TRL, which has that from IPO's authors. The hinge is on
log-ratios, as in TRL, and has no term that keeps to the supervised targets. Where branches share sampled tokens, a pair
is exact if their weights cancel there, as those of one chosen and one rejected episode do.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.core.errors import PartError
from etude.core.parts import part
from etude.objectives.base import check_choice, episodes, figure
from etude.protocols import Batch

if TYPE_CHECKING:
    import torch

LOSSES = ("sigmoid", "ipo", "hinge", "simpo", "orpo")


@part
@dataclass(frozen=True)
class Preference:
    """Loss of every (chosen, rejected) pair of a group; a group without a pair adds nothing."""

    loss: str = "sigmoid"
    """`sigmoid` (DPO), `ipo`, `hinge` (SLiC), `simpo` or `orpo`."""
    beta: float = 0.1
    """Scale of the log-ratios; SimPO takes 2 to 2.5. For `orpo` the weight of the odds ratio."""
    margin: float = 0.5
    """For `simpo`: by how much the chosen must be ahead."""
    smoothing: float = 0.0
    """For `sigmoid` and `simpo`: share of pairs that are taken to be the wrong way round."""

    def __post_init__(self) -> None:
        check_choice("objectives/preference", "loss", self.loss, LOSSES)
        if self.smoothing and self.loss not in ("sigmoid", "simpo"):
            raise PartError(f"objectives/preference: smoothing={self.smoothing} has no meaning for loss={self.loss!r}")

    @property
    def needs(self) -> frozenset[str]:
        """`groups`, and `reference` but for `simpo` and `orpo`."""
        return frozenset({"groups"} if self.loss in ("simpo", "orpo") else {"groups", "reference"})

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss, and per group: `pairs`, their share ranked rightly (`accuracy`), their mean beta (s(w) - s(l))
        (`margin`, nats, per token where the loss is). A group without a pair counts as 0.
        """
        value_N = batch.logprob_N
        if "reference" in self.needs:
            if batch.reference_logprob_N is None:
                raise PartError(
                    f"objectives/preference: loss={self.loss!r} but the batch has no reference log-probabilities"
                )
            value_N = value_N - batch.reference_logprob_N
        each = episodes("objectives/preference", value_N, batch)
        value_E = each.total_E if self.loss in ("sigmoid", "hinge") else each.total_E / each.length_E
        weight_E, group_E = each.weight_E, each.group_E
        same_EE = group_E[:, None] == group_E
        w_K, l_K = ((weight_E[:, None] > 0) & (weight_E < 0) & same_EE).nonzero(as_tuple=True)
        share_K = 1 / (group_E[w_K].bincount()[group_E[w_K]] * batch.groups)

        loss_K = self._loss(value_E[w_K], value_E[l_K])
        ahead_K = self.beta * (value_E[w_K] - value_E[l_K]).detach()
        metrics = {
            "pairs": figure(loss_K.new_tensor(len(w_K) / batch.groups), batch),
            "accuracy": figure((share_K * (ahead_K > 0)).sum(), batch),
            "margin": figure((share_K * ahead_K).sum(), batch),
        }
        return (loss_K * share_K * (weight_E[w_K] - weight_E[l_K]) / 2).sum(), metrics

    def _loss(self, chosen_K: "torch.Tensor", rejected_K: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import logsigmoid

        ahead_K = chosen_K - rejected_K
        if self.loss == "ipo":
            return (ahead_K - 1 / (2 * self.beta)) ** 2
        if self.loss == "hinge":
            return (1 - self.beta * ahead_K).relu()
        if self.loss == "orpo":
            return -chosen_K - self.beta * logsigmoid(ahead_K - _log_rest(chosen_K) + _log_rest(rejected_K))
        logit_K = self.beta * ahead_K - (self.margin if self.loss == "simpo" else 0.0)
        return -(1 - self.smoothing) * logsigmoid(logit_K) - self.smoothing * logsigmoid(-logit_K)


def _log_rest(logprob_K: "torch.Tensor") -> "torch.Tensor":
    """log(1 - p) of log p; p may be 1 in float32, where it would be minus infinity."""
    return (-logprob_K.clamp(max=-1e-7).expm1()).log()
