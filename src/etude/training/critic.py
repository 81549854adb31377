"""What a critic expects before each sampled token, written into the trajectories before credit is given."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from etude.trajectory import Trajectory
from etude.trajectory.forest import batches, forest
from etude.trajectory.graph import Node


@torch.no_grad()
def evaluate(
    policy: Any, value: Callable[[torch.Tensor], torch.Tensor], trajectories: Sequence[Trajectory], micro_tokens: int
) -> None:
    """Set `Node.value_T` of every sampled node; NaN where nothing was sampled.

    value: hidden states [N, C] -> float32 [N]; see `protocols.Objective`. micro_tokens: computed at once.
    """
    found = [_nodes(t, leaf) for t in trajectories for e in t.episodes for leaf in (*e.rewritten, e.leaf)]
    paths = [nodes for nodes in found if any(node.sampled for node in nodes)]
    ids = [np.concatenate([node.ids_T for node in nodes if node.ids_T is not None]) for nodes in paths]
    masks = [np.concatenate([_sampled(node) for node in nodes]) for nodes in paths]
    for mask_P in masks:
        mask_P[0] = False  # the first token of a context has nothing before it
    for trees in batches([[tree] for tree in forest(ids, micro_tokens, policy.reach)], micro_tokens):
        value_N = value(policy.logprob(trees, masks, hidden=True)[2]).cpu().numpy()
        rows = [r for tree in trees for r in tree.rows]
        ends = np.cumsum([masks[r].sum() for r in rows])
        for r, own_M in zip(rows, np.split(value_N, ends[:-1]), strict=True):
            value_P = np.full(len(ids[r]), np.nan, np.float32)
            value_P[masks[r]] = own_M
            lengths = [len(_sampled(node)) for node in paths[r]]
            for node, value_T in zip(paths[r], np.split(value_P, np.cumsum(lengths)[:-1]), strict=True):
                node.value_T = value_T if node.sampled else None


def _nodes(trajectory: Trajectory, leaf: int) -> list[Node]:
    nodes = [trajectory.nodes[n] for n in trajectory.path(leaf)]
    return [node for node in nodes if node.ids_T is not None]


def _sampled(node: Node) -> np.ndarray:
    assert node.ids_T is not None
    return np.zeros(len(node.ids_T), bool) if node.sampled_T is None else node.sampled_T.copy()
