"""The sampling temperature at which a policy explores as much as it should.

Liu et al. 2025, "AceReason-Nemotron 1.1", arXiv:2506.13284, section 4.4: choose T so that the temperature-adjusted
entropy, the mean over sampled tokens of the entropy of softmax(logits / T), is about 0.3 nats. Lower stops exploring,
higher slows learning.
Departures: T is found by bisection, where the paper tries a few; the tokens are those of episodes played at another
temperature, so that the entropy is a function of T that only rises.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from etude.core.errors import PartError
from etude.trajectory import Trajectory, episodes
from etude.trajectory.forest import batches, forest

LOWEST, HIGHEST = 0.05, 5.0


def find_temperature(entropy: Callable[[float], float], target: float, tolerance: float = 0.01) -> float:
    """T between LOWEST and HIGHEST with entropy(T) within `tolerance` nats of `target`, by bisection.

    entropy: T -> nats per token, never falling. Raises PartError where no T reaches the target.
    """
    low, high = LOWEST, HIGHEST
    least, most = entropy(low), entropy(high)
    if not least <= target <= most:
        raise PartError(
            f"practise.entropy={target:g} is out of reach: the entropy is {least:.3f} nats per token at temperature"
            f" {low:g} and {most:.3f} at {high:g}; take a target between them"
        )
    while True:
        middle = (low + high) / 2
        found = entropy(middle)
        if abs(found - target) <= tolerance or high - low < 1e-6:
            return middle
        low, high = (middle, high) if found < target else (low, middle)


def entropy_at(policy: Any, trajectories: Sequence[Trajectory], temperature: float, tokens: int = 2048) -> float:
    """Mean entropy of softmax(logits / temperature) over the sampled tokens, nats; NaN without any.

    tokens: padded tokens computed at once.
    """
    import torch

    sequences, masks = [], []
    for trajectory, episode in episodes(trajectories):
        ids, masks_T = [], []
        for node in map(trajectory.nodes.__getitem__, trajectory.path(episode.leaf)):
            if node.ids_T is not None:
                ids.append(node.ids_T)
                masks_T.append(np.zeros(len(node.ids_T), bool) if node.sampled_T is None else node.sampled_T)
        mask_P = np.concatenate([np.zeros(0, bool), *masks_T])
        if mask_P.any():
            mask_P[0] = False  # the first token of a context has no probability
            sequences.append(np.concatenate(ids))
            masks.append(mask_P)
    total, count = 0.0, 0
    with torch.no_grad():
        for trees in batches([[tree] for tree in forest(sequences, tokens, policy.reach)], tokens):
            entropy_N = policy.logprob(trees, masks, temperature=temperature, entropy=True)[1]
            total, count = total + entropy_N.sum().item(), count + len(entropy_N)
    return total / count if count else np.nan
