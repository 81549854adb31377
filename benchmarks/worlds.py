"""Worlds: episodes a second that each plays, and the share of a real rollout's time that is not the model's.

For the first figure the world's own solutions are played, found beforehand, and nothing is said where it has none: as
many episodes at once as the world allows, through the same `collect` that practice uses. For the second SmolLM2 plays 8
episodes of at most 4 answers of 32 tokens; what is counted is all time outside the decoder's steps: the world, and also
the agent and the rendering. Worlds that are not installed are left out; browsers are not worlds of text.
"""

import asyncio
import sys
import time
from typing import Any

import bench

from etude.agents.loops import native
from etude.apps import worlds
from etude.core import parts
from etude.core.errors import EnvironmentFault
from etude.evaluation import plays
from etude.policies import scripted
from etude.protocols import Sampling, Task
from etude.rollout.collect import attach, collect
from etude.trajectory import Message

EPISODES, PLAYED, ROUNDS = (2, 2, 1) if bench.QUICK else (64, 8, 3)
SLOW = 8  # episodes of a world that has workers
PIXELS = ("miniwob", "site")
AIM = 20  # per cent
MORE = {"gym": "{gym: {id: FrozenLake-v1}}"}  # worlds that want a setting


def main() -> None:
    policy, figures = bench.load_policy(), []
    for part in parts.find("environments"):
        name = MORE.get(part, part)
        try:
            world = plays.build(name)
        except Exception as error:
            print(f"{part} is left out: {error}", file=sys.stderr)
            continue
        tasks = [t for split in list(plays.splits(world).values())[:1] for t in _first(split, EPISODES)]
        at_once = getattr(world, "at_once", worlds.AT_ONCE)
        tasks = tasks if at_once >= worlds.AT_ONCE else tasks[:SLOW]
        said = {task.id: _solution(world, task) for task in tasks}
        rates = [len(tasks) / asyncio.run(_play(scripted(said), tasks)) for _ in range(1 + ROUNDS)][1:]
        figures.append(bench.figure(f"{part}, {at_once} at once", rates, "episodes/s"))
        share = _share(policy, tasks[:PLAYED])
        figures.append(bench.figure(f"{part}, outside the decoder", [share], "%", most=None if part in PIXELS else AIM))
        print(part, rates, share, file=sys.stderr)
    bench.report(figures)


def _first(tasks: Any, count: int) -> list[Task]:
    return [tasks[i] for i in range(min(count, len(tasks)))]


def _solution(world: Any, task: Task) -> list[Message]:
    try:
        return list(world.solve(task, 0))
    except (AttributeError, EnvironmentFault):
        return [Message("assistant", "")]


async def _play(policy: Any, tasks: list[Task]) -> float:
    begun = time.perf_counter()
    longest = max(len(script) for script in policy.messages.values())
    await collect(policy, tasks, agent=native(), concurrency=worlds.AT_ONCE, max_turns=longest)
    return time.perf_counter() - begun


def _share(policy: Any, tasks: list[Task]) -> float:
    """Per cent of the time of a rollout in which the decoder did not work."""
    attach(policy)
    counters = policy.generator.counters
    before, begun = counters.decoding, time.perf_counter()
    sampling = Sampling(max_tokens=32, temperature=1.0)
    asyncio.run(collect(policy, tasks, agent=native(), sampling=sampling, max_turns=4))
    took = time.perf_counter() - begun
    return 100 * (took - (counters.decoding - before)) / took


if __name__ == "__main__":
    main()
