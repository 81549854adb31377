"""DARE: drop most entries of each task vector by chance, rescale the rest, and add them up.

Yu et al. 2024, "Language Models are Super Mario", arXiv:2311.03099, section 3:
    tau'_m = z_m tau_m / density,   z_m ~ Bernoulli(density),   theta = theta_0 + lambda sum_m tau'_m
The paper's drop rate p is 1 - density. With elect=True the tau'_m are merged as in TIES, untrimmed.
Departures: a weight per model. mergekit's `dare_linear` and `dare_ties` rescale so that the sum of a tensor's
magnitudes stays what it was, which is 1 / density only on average; its `dare_ties` adds up the entries that agree,
where this averages them (its `normalize: true`).
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.errors import MergeError
from etude.core.parts import part
from etude.weights.merge.base import check_fraction, elected_mean, task_vectors, weights_of

if TYPE_CHECKING:
    import torch


@part
def dare(
    base: "torch.Tensor | None",
    tensors: "Sequence[torch.Tensor]",
    name: str,
    *,
    density: float = 0.1,
    elect: bool = False,
    weights: list[float] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> "torch.Tensor":
    """See protocols.Merge.

    density: probability with which an entry is kept.
    elect: average, per entry, the models that agree with the sign of the sum, instead of adding up all.
    weights: one per model; 1 each by default. With `elect` not negative, and only their ratios count.
    scale: the paper's lambda.
    seed: what is dropped follows from it, the tensor's name and the model's position, not from the order of tensors.
    """
    import torch

    check_fraction("dare", "density", density)
    if density == 0:
        raise MergeError("weights/merge/dare: density 0 drops every entry, and nothing can be rescaled; write 0.1")
    base, delta_M = task_vectors("dare", base, tensors)
    kept_M = torch.stack([_draw(base.shape, density, f"{seed}/{m}/{name}") for m in range(len(tensors))])
    delta_M = delta_M * kept_M / density
    weight_M = weights_of("dare", weights, tensors)
    return base + scale * (elected_mean(delta_M, weight_M, "dare") if elect else (weight_M * delta_M).sum(0))


def _draw(shape: "torch.Size", density: float, key: str) -> "torch.Tensor":
    """bool, true with probability `density`; the same for the same key."""
    import torch

    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
    return torch.rand(shape, generator=generator) < density
