"""Chains of hindsight: attempts at one task in one context, from the worst to the best, all told the best's return.

Agentic Transformer, Liu & Abbeel 2023, "Emergent Agentic Transformer from Chain of Hindsight Experience",
arXiv:2305.16554: n trajectories of one task are sorted by return and concatenated; the target return of each is
    R = max_i R_i
and a completion token is 1 behind the trajectory that reaches it, 0 behind the others. The loss is on actions alone.
With n = 1 this is Decision Transformer, Chen et al. 2021, arXiv:2106.01345. The loop `agents/loops/retry` plays it.
Departures: return and completion are words; the return stands once, in the request, for rewards come at the end.
"""

from collections import defaultdict
from typing import Literal

import numpy as np

from etude.core.parts import part
from etude.curation.base import ended, in_turn, log, split_episodes, told
from etude.trajectory import Trajectory


@part
def hindsight(
    trajectories: list[Trajectory],
    *,
    attempts: int = 2,
    order: Literal["ascending", "shuffled"] = "ascending",
    target: bool = True,
    ask: str = "Done: no. Try again.",
    seed: int = 0,
) -> list[Trajectory]:
    """One-episode trajectories, each a chain of `attempts` episodes of one task, or of what is left of them.

    attempts: episodes in a chain; each episode is in one chain.
    order: by reward, or as chance has it.
    target: whether the request ends with `Target: R`; in the loop that is `note`.
    ask: what stands between attempts, the completion token in words; the loop's `ask`.
    seed: of which episodes come together.

    Episodes without a reward, or that do not end with an answer, are dropped.
    """
    random = np.random.default_rng(seed)
    pools: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for one in (one for t in trajectories for one in split_episodes(t)):
        if one.episodes[0].reward is not None and ended(one):
            pools[one.task].append(one)
    chains = []
    for pool in pools.values():
        mixed = [pool[i] for i in random.permutation(len(pool))]
        for at in range(0, len(mixed), attempts):
            chosen = mixed[at : at + attempts]
            if order == "ascending":
                chosen.sort(key=_reward)
            chain = in_turn(chosen, ask)
            chains.append(told(chain, f"Target: {max(map(_reward, chosen)):g}") if target else chain)
    log.info("hindsight: %d chains from %d tasks", len(chains), len(pools))
    return chains


def _reward(one: Trajectory) -> float:
    reward = one.episodes[0].reward
    assert reward is not None
    return reward
