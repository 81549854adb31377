"""What the methods of merging share: weights, task vectors, magnitudes, signs.

Axes: M models, then the axes of the tensor.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.errors import MergeError

if TYPE_CHECKING:
    import torch


def check_fraction(method: str, name: str, value: float) -> None:
    """Raises MergeError for a setting that is not a number from 0 to 1."""
    if not 0 <= value <= 1:
        raise MergeError(f"weights/merge/{method}: {name} {value!r} is not a number from 0 to 1")


def weights_of(method: str, weights: Sequence[float] | None, tensors: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """float32 [M, 1, ...], one weight per model; 1 each where none are given.

    Raises MergeError for another number of weights than of models.
    """
    import torch

    values = [1.0] * len(tensors) if weights is None else weights
    if len(values) != len(tensors):
        given = f"{len(values)} weights {list(values)} for {len(tensors)} models"
        raise MergeError(f"weights/merge/{method}: {given}; give one each, without the base")
    return torch.tensor(values, dtype=torch.float32).view(-1, *[1] * tensors[0].dim())


def task_vectors(
    method: str, base: "torch.Tensor | None", tensors: "Sequence[torch.Tensor]"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The base, and [M, ...]: each model minus the base. Raises MergeError without a base."""
    import torch

    if base is None:
        raise MergeError(f"weights/merge/{method} adds up what each model changed; say from which base (--base BASE)")
    return base, torch.stack(list(tensors)) - base


def without_tails(tensor: "torch.Tensor", small: int, large: int) -> "torch.Tensor":
    """The tensor with its `small` smallest and its `large` largest magnitudes set to zero.

    Magnitudes that equal the last one kept are kept too, so that the order of entries changes nothing.
    """
    import torch

    size, count = tensor.abs().flatten(), tensor.numel()
    if small + large >= count:
        return torch.zeros_like(tensor)
    keep = torch.ones_like(size, dtype=torch.bool)
    if small:
        keep &= size >= size.kthvalue(small + 1).values
    if large:
        keep &= size <= size.kthvalue(count - large).values
    return torch.where(keep.view_as(tensor), tensor, 0.0)


def elected_mean(delta_M: "torch.Tensor", weight_M: "torch.Tensor", method: str) -> "torch.Tensor":
    """[...]: per entry, the weighted mean of the models whose sign is that of the weighted sum; 0 where that is 0.

    Raises MergeError for a negative weight, of which there is no mean.
    """
    if (weight_M < 0).any():
        negative = weight_M.min().item()
        raise MergeError(f"weights/merge/{method}: weight {negative:g} is negative; signs are elected by positive ones")
    weighted_M = weight_M * delta_M
    elected = weighted_M.sum(0).sign()
    agrees_M = weighted_M.sign() == elected
    total = (weight_M * agrees_M).sum(0)
    return (weighted_M * agrees_M).sum(0) / total.where(total > 0, 1.0)
