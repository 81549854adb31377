"""How per-token losses become one number."""

from typing import TYPE_CHECKING

from etude.core.errors import PartError, suggest
from etude.protocols import Batch

if TYPE_CHECKING:
    import torch

NORMALISERS = ("token", "sequence", "constant")


def check_choice(part: str, setting: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise PartError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise PartError(f"{part}: {setting}={value!r}; {suggest(value, allowed)}")


def normalised(loss_N: "torch.Tensor", batch: Batch, normalise: str) -> "torch.Tensor":
    """This micro-batch's share of the optimiser batch's loss, a scalar: shares add up to the whole.

    loss_N: [N], loss of each token.
    normalise: `token` is the mean over all tokens; `sequence` the mean over episodes of each one's mean;
        `constant` the sum divided by episodes x max_length, which favours neither short nor long ones.
    """
    if normalise == "token":
        return loss_N.sum() / max(batch.tokens, 1)
    if normalise == "constant":
        return loss_N.sum() / (max(batch.sequences, 1) * batch.max_length)
    return (loss_N / batch.length_S[batch.sequence_N]).sum() / max(batch.sequences, 1)
