"""How per-token losses become one number, and how the tokens of an episode become one."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Episodes:
    """What an objective that compares episodes reads of each of a micro-batch's E."""

    total_E: "torch.Tensor"
    """Sum over the tokens whose weight is not zero."""
    length_E: "torch.Tensor"
    """How many tokens these are, at least 1."""
    weight_E: "torch.Tensor"
    """Their mean weight; 0 where there are none."""
    group_E: "torch.Tensor"
    """Which trajectory holds the episode."""


def episodes(part: str, value_N: "torch.Tensor", batch: Batch) -> Episodes:
    """Sum each token's value, such as its log-ratio, over its episode.

    A token of weight zero is in no sum: a chosen and a rejected episode share it, and it says nothing about either.

    Raises PartError where one episode has weights of both signs.
    """
    episode_N = batch.episode_S[batch.sequence_N]
    count = int(batch.episode_S.max()) + 1

    def sums(x_N: "torch.Tensor") -> "torch.Tensor":
        return x_N.new_zeros(count).index_add(0, episode_N, x_N)

    weight_N = batch.weight_N.to(value_N.dtype)
    positive_N, negative_N = (weight_N > 0).to(value_N.dtype), (weight_N < 0).to(value_N.dtype)
    if ((sums(positive_N) > 0) & (sums(negative_N) > 0)).any():
        raise PartError(
            f"{part}: an episode has tokens of positive and of negative weight, and is chosen or rejected as a whole; "
            "leave those of one sign without weight"
        )
    judged_N = positive_N + negative_N
    length_E = sums(judged_N).clamp(min=1)
    group_E = batch.group_S.new_zeros(count)
    group_E[batch.episode_S] = batch.group_S
    return Episodes(sums(judged_N * value_N), length_E, sums(weight_N) / length_E, group_E)


def figure(share: "torch.Tensor", batch: Batch) -> float:
    """A figure to log whose shares add up over micro-batches: the learner weighs figures by tokens, this undoes it."""
    return share.item() * batch.tokens / len(batch.logprob_N)
