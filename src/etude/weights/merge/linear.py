"""Linear: the weighted average of the models.

Wortsman et al. 2022, "Model soups", arXiv:2203.05482, section 2:  theta = 1/M sum_m theta_m
Departures: weights, which are divided by their sum (mergekit's `linear` with its default `normalize`). A base lends
its configuration and tokenizer only; to average it too, name it among the models.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.errors import MergeError
from etude.core.parts import part
from etude.weights.merge.base import weights_of

if TYPE_CHECKING:
    import torch


@part
def linear(
    base: "torch.Tensor | None",
    tensors: "Sequence[torch.Tensor]",
    name: str,
    *,
    weights: list[float] | None = None,
) -> "torch.Tensor":
    """See protocols.Merge.

    weights: one per model, divided by their sum; equal by default.

    Raises MergeError for weights that sum to zero.
    """
    import torch

    weight_M = weights_of("linear", weights, tensors)
    total = weight_M.sum()
    if total == 0:
        raise MergeError(f"weights/merge/linear: weights {weights} sum to 0, and an average divides by their sum")
    return (weight_M * torch.stack(list(tensors))).sum(0) / total
