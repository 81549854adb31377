"""Leaks: memory after 500 episodes against that after 50, with many episodes at once; and workers that are killed.

64 episodes of `desk` at once, and 8 of `site`, a shop in 8 Chromiums; each plays its world's own solution. Memory is
that of this process and of all that it started, shared pages counted once (PSS). Then, while 8 episodes of the shop are
under way, the worker of one is killed with SIGKILL: how many of the 8 failed is counted. Worlds that are not installed
are left out. Not part of `run.py` without its name: it takes half an hour.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys

import bench
import psutil

from etude.agents.loops import native
from etude.core.errors import MissingExtra
from etude.evaluation import plays
from etude.policies import scripted
from etude.rollout.collect import collect

ROUND, LAST = (4, 8) if bench.QUICK else (50, 500)
WORLDS = {"desk": 64, "site": 8}
AIM = 1.05


def main() -> None:
    figures = []
    for name, at_once in WORLDS.items():
        try:
            world = plays.build(name)
        except MissingExtra as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
            continue
        first, last = asyncio.run(soak(world, at_once))
        figures.append(bench.figure(f"{name}, {at_once} at once: memory after {ROUND} episodes", [first], "MB"))
        figures.append(bench.figure(f"{name}, after {LAST} against {ROUND}", [last / first], most=AIM))
        if hasattr(world, "crew"):
            failed = asyncio.run(killed(world))
            figures.append(
                bench.figure(f"{name}, episodes lost to one killed worker", [failed], "of 8", least=1, most=1)
            )
    bench.report(figures)


async def soak(world, at_once: int) -> tuple[float, float]:
    """Megabytes after the first ROUND episodes and after the last."""
    pool, seen = world.tasks("train"), []
    tasks = [pool[i] for i in range(ROUND)]
    said = {task.id: list(world.solve(task, 0)) for task in tasks}
    for played in range(ROUND, LAST + 1, ROUND):
        made = await collect(scripted(said), tasks, agent=native(), concurrency=at_once, max_turns=100)
        failures = [e.failure for t in made for e in t.episodes if e.failure]
        assert not failures, failures[0]
        del made
        gc.collect()
        seen.append(megabytes())
        print(world.name, played, f"{seen[-1]:.0f} MB", file=sys.stderr)
    return seen[0], seen[-1]


async def killed(world) -> int:
    """Of 8 episodes, how many failed when one worker was killed in their midst."""
    pool = world.tasks("train")
    tasks = [pool[i] for i in range(8)]
    said = {task.id: list(world.solve(task, 0)) for task in tasks}
    playing = asyncio.ensure_future(collect(scripted(said), tasks, agent=native(), concurrency=8, max_turns=100))
    busy: list[psutil.Process] = []
    while not busy:
        await asyncio.sleep(1.0)
        busy = [p for p in psutil.Process().children() if "served.py" in " ".join(p.cmdline())]
    os.kill(busy[0].pid, signal.SIGKILL)
    return sum(e.failure is not None for t in await playing for e in t.episodes)


def megabytes() -> float:
    """PSS of this process and all that it started."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20


if __name__ == "__main__":
    main()
