"""The online loop: play, give credit, take one step, again; or play ahead, while training goes on."""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from etude.core.errors import PartError
from etude.training.learner import Learner
from etude.trajectory import Trajectory

Play = Callable[[int], Awaitable[list[Trajectory]]]
Report = Callable[[int, dict[str, float], list[Trajectory]], None]


async def _nothing(step: int) -> None:
    pass


async def online(
    learner: Learner,
    play: Play,
    credit: Callable[..., Any],
    *,
    steps: int,
    start: int = 0,
    updates: int = 1,
    ahead: int = 0,
    on_begin: Callable[[int], Awaitable[None]] = _nothing,
    on_weighed: Callable[[int, list[Trajectory]], None] = lambda step, trajectories: None,
    on_step: Report = lambda step, figures, trajectories: None,
) -> None:
    """Practise for `steps` steps.

    play: step number, from 0 -> that step's scored trajectories, by the policy as it is now.
    credit: see protocols.Credit.
    start: steps already made. updates: optimiser steps per set of trajectories; beyond the first they are off-policy,
        which is what an objective's clipping is for.
    ahead: steps that play may be ahead of training. Above 0 a step is trained in a thread while the next ones are
        played, so weights move in the midst of an episode (PipelineRL, Piché et al. 2025, arXiv:2509.19128). The figure
        `staleness` says how many versions of the policy lie between the oldest token of a step and training on it: at
        most ahead x updates. Such a run is not the same twice. One that goes on from a checkpoint plays anew the steps
        that were in play.
    on_begin: awaited before each step, with its number, from 0, while nothing is trained.
    on_weighed: called before each step is trained on, with its number, from 0, and its weighted trajectories.
    on_step: called after each step with its number, from 1, its figures and its trajectories.

    What `play` or a callback raises ends it at once. Then nothing is played any more, nor trained.
    """
    if ahead and learner.correction != "truncate":
        raise PartError(
            f"ahead={ahead} trains on what older weights sampled, and correction={learner.correction!r} leaves that "
            "uncorrected; set correction: truncate, or ahead: 0"
        )
    async with _playing(play, steps, ahead) as played:
        for step in range(start, steps):
            await on_begin(step)
            trajectories = await played(step)
            learner.evaluate(trajectories)
            give(credit, trajectories)
            on_weighed(step, trajectories)
            if ahead:
                figures = {"staleness": staleness(learner.policy.version, trajectories)}
                figures |= await _in_thread(functools.partial(learner.step, trajectories, updates))
            else:
                figures = learner.step(trajectories, updates)
            on_step(step + 1, figures | summary(trajectories), trajectories)


@contextlib.asynccontextmanager
async def _playing(play: Play, steps: int, ahead: int) -> AsyncIterator[Play]:
    """`play`, begun up to `ahead` steps before it is asked for; on leaving, what is in play is cancelled."""
    if not ahead:
        yield play
        return
    begun: dict[int, asyncio.Task[list[Trajectory]]] = {}

    async def begin(step: int) -> list[Trajectory]:
        return await play(step)

    async def played(step: int) -> list[Trajectory]:
        for coming in range(step, min(step + ahead + 1, steps)):
            if coming not in begun:
                begun[coming] = group.create_task(begin(coming))
        return await begun.pop(step)

    try:
        async with asyncio.TaskGroup() as group:
            yield played
    except BaseExceptionGroup as failed:  # the first is what went wrong
        raise failed.exceptions[0] from None


async def _in_thread(train: Callable[[], dict[str, float]]) -> dict[str, float]:
    """As `asyncio.to_thread`, but cancelled it waits for the thread: nothing may go on moving the weights."""
    thread = asyncio.ensure_future(asyncio.to_thread(train))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.gather(thread, return_exceptions=True)
        raise


def staleness(version: int, trajectories: Sequence[Trajectory]) -> int:
    """How many versions before `version` the oldest sampled message was begun; 0 where nothing was sampled."""
    return max((version - n.version for t in trajectories for n in t.nodes if n.version is not None), default=0)


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


def has_signal(trajectory: Trajectory) -> bool:
    """Whether episodes of the group have different scores."""
    return len({e.score for e in trajectory.episodes if e.score is not None}) > 1


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
    spread = [t for t in trajectories if has_signal(t)]
    counts = {"episodes": len(episodes), "failed": len(episodes) - len(played), "groups_with_gradient": len(spread)}
    return figures | counts
