"""Samples in which a call would be wrong: tools without need, and need without tools.

Agent-FLAN, Chen et al. 2024, arXiv:2403.12881: of the grid {tools are given or not} x {the request needs one or not},
agent data and chat are two cells. The other two are added:
    tools, no need -> the ordinary answer           no tools, need -> saying so
Departures: the words of the refusal are always the same.
"""

import dataclasses

import numpy as np

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import log, saying, split_episodes
from etude.trajectory import Message, Trajectory


@part
def negatives(
    trajectories: list[Trajectory],
    *,
    share: float = 0.1,
    refusal: str = "I have no tool for that.",
    seed: int = 0,
) -> list[Trajectory]:
    """One-episode trajectories: the data, then as many of each missing cell as are `share` of it, at least one.

    share: of the data's size. refusal: what is said where no tool is given. seed: of which episodes are taken.

    Each has `meta["cell"]`: `tools need`, `tools plain`, `bare need` or `bare plain`. Agent episodes are those with
    tools, plain ones those without: put `mix` before this. Raises RecipeError where there are none of either kind.
    """
    random = np.random.default_rng(seed)
    data = [
        _marked(one, "tools need" if one.tools else "bare plain") for t in trajectories for one in split_episodes(t)
    ]
    agent, plain = ([one for one in data if bool(one.tools) == given] for given in (True, False))
    if not agent or not plain:
        raise RecipeError(
            f"curation/negatives: {len(agent)} episodes with tools and {len(plain)} without; it needs both, "
            "so put  mix  before it, with an eta between 0 and 1"
        )
    count = max(1, round(share * len(data)))
    added = []
    for n in range(count):
        needs, other, asks = (pool[random.integers(len(pool))] for pool in (agent, agent, plain))
        answered = dataclasses.replace(_as_text(asks), tools=other.tools)
        for sample, cell in ((_refused(needs, refusal), "bare need"), (answered, "tools plain")):
            added.append(dataclasses.replace(_marked(sample, cell), id=f"{sample.id}-{n}"))
    log.info("negatives: %d episodes and %d of each missing cell", len(data), count)
    return [*data, *added]


def _refused(one: Trajectory, refusal: str) -> Trajectory:
    asked = []
    for message in one.dialogue(one.episodes[0].leaf):
        if message.role == "assistant":
            break
        asked.append(message)
    return dataclasses.replace(saying(one, [*asked, Message("assistant", refusal)]), tools=[])


def _as_text(one: Trajectory) -> Trajectory:
    return saying(one, one.dialogue(one.episodes[0].leaf))


def _marked(one: Trajectory, cell: str) -> Trajectory:
    return dataclasses.replace(one, meta=one.meta | {"cell": cell})
