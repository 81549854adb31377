"""Task arithmetic: add to the base what each model changed.

Ilharco et al. 2023, "Editing Models with Task Arithmetic", arXiv:2212.04089, section 2:
    theta = theta_0 + lambda sum_m tau_m,   tau_m = theta_m - theta_0
Departures: a weight per model; a negative one makes the base forget what that model learnt (the paper's negation).
mergekit's `task_arithmetic` is the same.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.parts import part
from etude.weights.merge.base import task_vectors, weights_of

if TYPE_CHECKING:
    import torch


@part
def task_arithmetic(
    base: "torch.Tensor | None",
    tensors: "Sequence[torch.Tensor]",
    name: str,
    *,
    weights: list[float] | None = None,
    scale: float = 1.0,
) -> "torch.Tensor":
    """See protocols.Merge.

    weights: one per model; 1 each by default.
    scale: the paper's lambda, which it chooses on held-out tasks.
    """
    base, delta_M = task_vectors("task_arithmetic", base, tensors)
    return base + scale * (weights_of("task_arithmetic", weights, tensors) * delta_M).sum(0)
