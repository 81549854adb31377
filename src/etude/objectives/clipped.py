"""Clipped policy gradient: one objective, whose settings give PPO's, GRPO's, DAPO's, Dr. GRPO's, GSPO's and RLOO's.

PPO, Schulman et al. 2017, arXiv:1707.06347, eq. 7:
    L = -min(r w, clip(r, 1 - low, 1 + high) w),   r = pi(y_t) / pi_old(y_t),   w = the token's weight (advantage)
GRPO, Shao et al. 2024, arXiv:2402.03300: normalise="sequence", kl > 0;  kl (pi_ref/pi - log(pi_ref/pi) - 1)  is added.
Other estimates of the divergence, Schulman 2020, "Approximating KL Divergence", with d = log(pi / pi_ref): `k2` adds
    kl d^2 / 2, whose gradient on the policy's own tokens is that of the divergence; `k1` puts the penalty into the
    reward, as InstructGPT does, Ouyang et al. 2022, arXiv:2203.02155: w - kl d is the weight, d held constant.
Entropy bonus, Mnih et al. 2016, arXiv:1602.01783: entropy > 0;  entropy H(pi)  of every token is subtracted.
DAPO, Yu et al. 2025, arXiv:2503.14476: normalise="token", high=0.28.
Dr. GRPO, Liu et al. 2025, arXiv:2503.20783: normalise="constant", kl=0, with credit/group std=False.
GSPO, Zheng et al. 2025, arXiv:2507.18071: importance="sequence", normalise="sequence"; r = (pi(y) / pi_old(y))^(1/|y|).
RLOO as TRL clips it: importance="product", normalise="sequence"; r = pi(y) / pi_old(y).
Critic, as PPO trains it with the policy, eq. 9: value > 0;  value (V(s_t) - R_t)^2 / 2  of every token is added, with
V linear in the model's last hidden state, so that the trunk is shared, and R from credit/gae.
Dual clip, Ye et al. 2020, arXiv:1912.09729: dual=3 bounds the loss of an unlikely token with negative weight.
Departures: none beyond the choice of defaults; the critic's step is not clipped. Where a template rewrote history, each
rendering has a ratio of its own, and `normalise` takes those of one episode together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.core.errors import PartError
from etude.core.parts import part
from etude.objectives.base import NORMALISERS, check_choice, normalised
from etude.protocols import Batch

if TYPE_CHECKING:
    import torch

IMPORTANCE = ("token", "sequence", "product")
ESTIMATES = ("k1", "k2", "k3")


@part
@dataclass
class Clipped:
    """Importance-weighted policy gradient with the ratio clipped to [1 - low, 1 + high]."""

    low: float = 0.2
    """How far below 1 the ratio may fall before a negative weight stops pushing."""
    high: float = 0.2
    """How far above 1 the ratio may rise before a positive weight stops pushing."""
    normalise: str = "token"
    """`token` (DAPO), `sequence` (GRPO) or `constant` (Dr. GRPO); see `etude.objectives.base.normalised`."""
    importance: str = "token"
    """Ratio of each `token`, of the `sequence` as the geometric mean of its tokens' (GSPO), or as their `product`."""
    kl: float = 0.0
    """Coefficient of the divergence from the reference policy, in loss per nat."""
    estimate: str = "k3"
    """Of that divergence: `k3` or `k2` in the loss, or `k1` in the weights."""
    entropy: float = 0.0
    """Coefficient of the entropy bonus, in loss per nat."""
    dual: float | None = None
    """Upper bound of the ratio where the weight is negative; None leaves it open."""
    value: float = 0.0
    """Coefficient of the critic's squared error, in loss per squared unit of score; 0: no critic."""
    head_rate: float = 10.0
    """How much faster the critic's head moves than the weights do."""
    head: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("objectives/clipped", "normalise", self.normalise, NORMALISERS)
        check_choice("objectives/clipped", "importance", self.importance, IMPORTANCE)
        check_choice("objectives/clipped", "estimate", self.estimate, ESTIMATES)
        if self.dual is not None and self.dual <= 1 + self.high:
            raise PartError(f"objectives/clipped: dual={self.dual} must exceed 1 + high = {1 + self.high}; 3 is usual")

    @property
    def needs(self) -> frozenset[str]:
        """`reference` for a divergence to pay for, `entropy` for a bonus, `hidden` for a critic."""
        wanted = {"reference": self.kl, "entropy": self.entropy, "hidden": self.value}
        return frozenset(name for name, coefficient in wanted.items() if coefficient)

    def parameters(self, width: int) -> "Iterator[torch.Tensor]":
        """The critic's head, [C + 1], weights and then bias: zero at first, so that it begins by expecting nothing."""
        import torch

        if self.value:
            if self.head is None:
                self.head = torch.zeros(width + 1, requires_grad=True)
            yield self.head

    def expects(self, hidden_NC: "torch.Tensor") -> "torch.Tensor":
        """What the critic expects from each state on, float32 [N], in the score's unit."""
        head = self.head_rate * self.head.to(hidden_NC.device)
        return hidden_NC.float() @ head[:-1] + head[-1]

    def __call__(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, float]]":
        """Scalar loss, and per token: share clipped, mean ratio, KL from the old policy (nats), entropy where given."""
        log_ratio_N = batch.logprob_N - batch.old_logprob_N
        ratio_N = self._importance(log_ratio_N, batch).exp()
        weight_N, away_N = batch.weight_N, None
        if self.kl:
            if batch.reference_logprob_N is None:
                raise PartError(f"objectives/clipped: kl={self.kl} but the batch has no reference log-probabilities")
            away_N = batch.logprob_N - batch.reference_logprob_N
            if self.estimate == "k1":
                weight_N = weight_N - self.kl * away_N.detach()
        clipped_N = ratio_N.clamp(1 - self.low, 1 + self.high)
        bounded_N = ratio_N if self.dual is None else ratio_N.clamp(max=self.dual)
        loss_N = -(bounded_N * weight_N).minimum(clipped_N * weight_N)

        over_N = ((ratio_N < 1 - self.low) & (weight_N < 0)) | ((ratio_N > 1 + self.high) & (weight_N > 0))
        metrics = {
            "clipped": over_N.float().mean().item(),
            "ratio": ratio_N.mean().item(),
            "old_kl": _k3(-log_ratio_N).mean().item(),
        }
        if batch.entropy_N is not None:
            metrics["entropy"] = batch.entropy_N.mean().item()
        if away_N is not None:
            kl_N = _k3(-away_N)
            metrics["reference_kl"] = kl_N.mean().item()
            if self.estimate != "k1":
                loss_N = loss_N + self.kl * (kl_N if self.estimate == "k3" else away_N**2 / 2)
        if self.entropy:
            if batch.entropy_N is None:
                raise PartError(f"objectives/clipped: entropy={self.entropy} but the batch has no entropies")
            loss_N = loss_N - self.entropy * batch.entropy_N
        if self.value:
            if batch.hidden_NC is None or batch.return_N is None or batch.return_N.isnan().any():
                raise PartError(
                    f"objectives/clipped: value={self.value} trains a critic, and no credit said what it should "
                    "expect; use credit: gae, or value: 0"
                )
            error_N = self.expects(batch.hidden_NC) - batch.return_N
            loss_N = loss_N + self.value * error_N**2 / 2
            metrics["value_error"] = error_N.detach().square().mean().item()
        return normalised(loss_N, batch, self.normalise), metrics

    def _importance(self, log_ratio_N: "torch.Tensor", batch: Batch) -> "torch.Tensor":
        if self.importance == "token":
            return log_ratio_N
        S = len(batch.length_S)
        sum_S = log_ratio_N.new_zeros(S).index_add(0, batch.sequence_N, log_ratio_N)
        count_S = batch.sequence_N.bincount(minlength=S)
        return (sum_S / count_S if self.importance == "sequence" else sum_S)[batch.sequence_N]


def _k3(log_ratio_N: "torch.Tensor") -> "torch.Tensor":
    """Schulman's estimate of KL(sampler || other), [N] nats, never negative; log_ratio_N is log(other / sampler)."""
    return log_ratio_N.exp() - log_ratio_N - 1
