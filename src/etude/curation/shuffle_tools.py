"""Offer the tools in another order, so that a tool is found by what it does and not by where it stands.

ActionStudio, Zhang et al. 2025, arXiv:2503.22673 (tool-order shuffling as augmentation).
Departures: the wording of the tool list is the chat template's and is not varied.
"""

import dataclasses

import numpy as np

from etude.core.parts import part
from etude.curation.base import split_episodes, untokenised
from etude.trajectory import Trajectory


@part
def shuffle_tools(
    trajectories: list[Trajectory], *, copies: int = 1, keep: bool = True, seed: int = 0
) -> list[Trajectory]:
    """One-episode trajectories: the originals, then their shuffled copies, whose ids end in `~1`, `~2`, ….

    copies: shuffled copies of each trajectory that has at least two tools.
    keep: whether the originals are kept beside their copies.
    seed: of the orders.

    The tool list is part of the prompt, so a copy has no tokens until it is rendered again.
    """
    random = np.random.default_rng(seed)
    originals = [one for t in trajectories for one in split_episodes(t)]
    shuffled = [
        dataclasses.replace(
            untokenised(t), id=f"{t.id}~{n}", tools=[t.tools[i] for i in random.permutation(len(t.tools))]
        )
        for n in range(1, copies + 1)
        for t in originals
        if len(t.tools) > 1
    ]
    return [*(originals if keep else ()), *shuffled]
