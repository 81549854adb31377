"""TIES: trim each task vector, elect a sign per entry, and average those that have it.

Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models", arXiv:2306.01708, algorithm 1:
    tau'_m = tau_m where |tau_m| is among the largest `density`, else 0
    theta = theta_0 + lambda mean over {m : sgn(tau'_m) = g} of tau'_m,   g = sgn(sum_m tau'_m)
Departures: trimmed tensor by tensor, where the paper ranks the entries of the whole model; a weight per model, both in
the election and in the mean. As in the authors' code, all entries that equal the smallest one kept are kept:
checkpoints in bfloat16 have many; mergekit's `ties` keeps an arbitrary choice of these. Signs are elected by the sum
of values, not by a count of models, as in mergekit. Where the sum is exactly 0 no sign is elected and the base stays,
as the formula says; mergekit takes the positive side.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.parts import part
from etude.weights.merge.base import check_fraction, elected_mean, task_vectors, weights_of, without_tails

if TYPE_CHECKING:
    import torch


@part
def ties(
    base: "torch.Tensor | None",
    tensors: "Sequence[torch.Tensor]",
    name: str,
    *,
    density: float = 0.2,
    weights: list[float] | None = None,
    scale: float = 1.0,
) -> "torch.Tensor":
    """See protocols.Merge.

    density: share of each task vector's entries that is kept, the largest ones; at least one entry is.
    weights: one per model, not negative; only their ratios count. Equal by default.
    scale: the paper's lambda.
    """
    import torch

    check_fraction("ties", "density", density)
    base, delta_M = task_vectors("ties", base, tensors)
    dropped = max(0, base.numel() - max(1, round(density * base.numel())))
    trimmed_M = torch.stack([without_tails(delta, dropped, 0) for delta in delta_M])
    return base + scale * elected_mean(trimmed_M, weights_of("ties", weights, tensors), "ties")
