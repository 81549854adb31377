"""The online loop: play, give credit, take one step, again."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from etude.training.learner import Learner
from etude.trajectory import Trajectory

Play = Callable[[int], Awaitable[list[Trajectory]]]
Report = Callable[[int, dict[str, float], list[Trajectory]], None]


async def online(
    learner: Learner,
    play: Play,
    credit: Callable[..., Any],
    *,
    steps: int,
    start: int = 0,
    updates: int = 1,
    on_weighed: Callable[[int, list[Trajectory]], None] = lambda step, trajectories: None,
    on_step: Report = lambda step, figures, trajectories: None,
) -> None:
    """Practise for `steps` steps.

    play: step number, from 0 -> that step's scored trajectories, by the policy as it is now.
    credit: see protocols.Credit.
    start: steps already made. updates: optimiser steps per set of trajectories; beyond the first they are off-policy,
        which is what an objective's clipping is for.
    on_weighed: called before each step is trained on, with its number, from 0, and its weighted trajectories.
    on_step: called after each step with its number, from 1, its figures and its trajectories.
    """
    for step in range(start, steps):
        trajectories = await play(step)
        give(credit, trajectories)
        on_weighed(step, trajectories)
        figures = {}
        for _ in range(updates):
            figures = learner.step(trajectories)
        on_step(step + 1, figures | summary(trajectories), trajectories)


def give(credit: Callable[..., Any], trajectories: Sequence[Trajectory]) -> None:
    """Weigh the trajectories of one step, each by itself or all together, as the credit's first parameter says."""
    takes = next(iter(inspect.signature(credit).parameters))
    if takes == "trajectories":
        credit(trajectories)
        return
    for trajectory in trajectories:
        if takes == "trajectory":
            credit(trajectory)
        else:
            trajectory.weigh(credit(trajectory.score_G))


def summary(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Figures of a set of episodes; failed ones are counted apart and are in no mean."""
    episodes = [e for t in trajectories for e in t.episodes]
    played = [e for e in episodes if e.failure is None]
    mean = {
        "reward": [e.reward for e in played if e.reward is not None],
        "score": [e.score for e in played if e.score is not None],
        "turns": [e.turns for e in played],
        "sampled": [e.tokens_sampled for e in played],
    }
    figures: dict[str, float] = {k: float(np.mean(v)) for k, v in mean.items() if v}
    spread = [t for t in trajectories if len({e.score for e in t.episodes if e.score is not None}) > 1]
    counts = {"episodes": len(episodes), "failed": len(episodes) - len(played), "groups_with_gradient": len(spread)}
    return figures | counts
