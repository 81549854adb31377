"""Attempts, improved: behind one's own worse attempts stands the best that is known, and that alone is trained.

RISE, Qu et al. 2024, "Recursive Introspection: Teaching Language Model Agents How to Self-Improve", arXiv:2407.18219:
a state is the task and the attempts so far; each is relabelled with an improved attempt, a teacher's or the best of N
of one's own, and trained by reward-weighted regression (credit/regression). The loop `agents/loops/retry` plays it.
Departures: attempts in one context are put together from episodes that were played apart.
"""

import dataclasses
from collections import defaultdict

from etude.core.parts import part
from etude.curation.base import answers, ended, in_turn, log, split_episodes
from etude.trajectory import Trajectory


@part
def introspect(trajectories: list[Trajectory], *, attempts: int = 2, ask: str = "Try again.") -> list[Trajectory]:
    """One-episode trajectories: for each task the best episode, alone, and behind 1, 2, … of the others.

    attempts: most in one dialogue, the best included.
    ask: what stands between attempts; the loop's `ask`.

    `meta["given"]` is how many answers are those of earlier attempts; `curation/given` leaves them untrained. Episodes
    without a reward, or that do not end with an answer, are dropped. Reward and score are the best one's, so that no
    state gets an attempt worse than the one it had.
    """
    pools: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for one in (one for t in trajectories for one in split_episodes(t)):
        if one.episodes[0].reward is not None and ended(one):
            pools[one.task].append(one)
    found = []
    for pool in pools.values():
        best = max(pool, key=lambda one: one.episodes[0].reward or 0.0)
        others = [one for one in pool if one is not best][: attempts - 1]
        for turn in range(len(others) + 1):
            sample = in_turn([*others[:turn], best], ask)
            given = sum(len(answers(one)) for one in others[:turn])
            found.append(dataclasses.replace(sample, id=f"{best.id}@{turn + 1}", meta=best.meta | {"given": given}))
    log.info("introspect: %d states of %d tasks", len(found), len(pools))
    return found
