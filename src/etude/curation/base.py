"""What parts that choose among episodes share."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.core.errors import CreditError
from etude.trajectory import Node, Trajectory

log = logging.getLogger("etude.curation")


def keep_episodes(trajectory: Trajectory, keep_G: Sequence[bool] | np.ndarray) -> Trajectory | None:
    """A copy with only these episodes, and only the nodes and messages that they use; None if there are none.

    keep_G: one truth value per episode. The copy shares messages and per-token arrays with the original.

    Raises CreditError where a kept and a dropped episode share a weighted node: its weight is the sum of both.
    """
    if all(keep_G):
        return trajectory if trajectory.episodes else None
    kept = [e for e, keep in zip(trajectory.episodes, keep_G, strict=True) if keep]
    if not kept:
        return None
    used = {n for e in kept for n in trajectory.nodes_of(e)}
    dropped = {
        n for e, keep in zip(trajectory.episodes, keep_G, strict=True) if not keep for n in trajectory.nodes_of(e)
    }
    for n in sorted(used & dropped):
        if trajectory.nodes[n].weight_T is not None:
            raise CreditError(
                f"trajectory {trajectory.id} node {n} carries the weight of an episode that curation drops; "
                "curate first, weigh afterwards"
            )
    node_of = {old: new for new, old in enumerate(sorted(used))}
    message_of = {old: new for new, old in enumerate(sorted({trajectory.nodes[n].message for n in used}))}
    nodes = [
        dataclasses.replace(
            node, parent=None if node.parent is None else node_of[node.parent], message=message_of[node.message]
        )
        for node in (trajectory.nodes[n] for n in node_of)
    ]
    return dataclasses.replace(
        trajectory,
        messages=[trajectory.messages[m] for m in message_of],
        nodes=nodes,
        episodes=[
            dataclasses.replace(e, leaf=node_of[e.leaf], rewritten=[node_of[n] for n in e.rewritten]) for e in kept
        ],
    )


def split_episodes(trajectory: Trajectory) -> list[Trajectory]:
    """One trajectory per episode; where there are several, their ids end in `/0`, `/1`, …"""
    if len(trajectory.episodes) == 1:
        return [trajectory]
    alone = [
        keep_episodes(trajectory, np.arange(len(trajectory.episodes)) == g) for g in range(len(trajectory.episodes))
    ]
    return [dataclasses.replace(t, id=f"{trajectory.id}/{g}") for g, t in enumerate(alone) if t is not None]


def untokenised(trajectory: Trajectory) -> Trajectory:
    """The same dialogues as text alone: whoever edits the prompt or an answer takes away the tokens that said it."""
    bare = [Node(node.parent, node.message, reward=node.reward, scores=node.scores) for node in trajectory.nodes]
    return dataclasses.replace(trajectory, nodes=bare)


def value_of(trajectory: Trajectory, key: str) -> Any:
    """`task`, `environment` or `split` of a trajectory, or what its meta holds under another key; None for nothing."""
    return getattr(trajectory, key) if key in ("task", "environment", "split") else trajectory.meta.get(key)
