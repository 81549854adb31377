"""Model breadcrumbs: add up task vectors without their outliers and without their small perturbations.

Davari and Belilovsky 2024, "Model Breadcrumbs", arXiv:2312.06795, section 3:
    theta = theta_0 + alpha sum_m mask_m tau_m
    mask_m = 1 where |tau_m| lies between the percentiles beta and gamma of its layer, else 0
Departures: a weight per model; a layer is a tensor. All entries that equal one of the two bounds are kept. mergekit's
`breadcrumbs` has density = gamma - beta and its own gamma = 1 - the gamma here; it chooses arbitrarily among equal
entries.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.errors import MergeError
from etude.core.parts import part
from etude.weights.merge.base import check_fraction, task_vectors, weights_of, without_tails

if TYPE_CHECKING:
    import torch


@part
def breadcrumbs(
    base: "torch.Tensor | None",
    tensors: "Sequence[torch.Tensor]",
    name: str,
    *,
    beta: float = 0.85,
    gamma: float = 0.99,
    weights: list[float] | None = None,
    scale: float = 1.0,
) -> "torch.Tensor":
    """See protocols.Merge.

    beta: share of a tensor's entries, the smallest, that is left out.
    gamma: percentile above which entries are outliers and left out; 1 leaves none out.
    weights: one per model; 1 each by default.
    scale: the paper's alpha, about 0.3 there.

    Raises MergeError where nothing lies between beta and gamma.
    """
    import torch

    check_fraction("breadcrumbs", "beta", beta)
    check_fraction("breadcrumbs", "gamma", gamma)
    if beta >= gamma:
        raise MergeError(f"weights/merge/breadcrumbs: nothing lies between beta {beta:g} and gamma {gamma:g}")
    base, delta_M = task_vectors("breadcrumbs", base, tensors)
    small, large = round(beta * base.numel()), round((1 - gamma) * base.numel())
    masked_M = torch.stack([without_tails(delta, small, large) for delta in delta_M])
    return base + scale * (weights_of("breadcrumbs", weights, tensors) * masked_M).sum(0)
