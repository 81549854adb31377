"""One step of online practice on the tiny model, all included: 16 episodes of 20 tokens played, trained, logged."""

import asyncio
import itertools
import tempfile
import time
from pathlib import Path

import bench

from etude.agents.loops import native
from etude.core.rundir import Lines
from etude.credit import group
from etude.objectives import clipped
from etude.protocols import Sampling
from etude.rollout.collect import collect
from etude.training.learner import Learner
from etude.training.online import online

TASKS, GROUP, TOKENS, STEPS = 4, 4, 20, 2 if bench.QUICK else 20


def main() -> None:
    policy, world, times = bench.never_stops(bench.load_tiny()), bench.Chat(words=12), []
    learner = Learner(policy, clipped(), lr=1e-5, max_length=TOKENS)

    async def play(step: int):
        tasks = world.tasks("train", TASKS, step * TASKS)
        return await collect(
            policy, tasks, agent=native(), group=GROUP, sampling=Sampling(max_tokens=TOKENS), seed=step
        )

    with tempfile.TemporaryDirectory() as directory:
        metrics = Lines(Path(directory) / "metrics.jsonl")

        def on_step(step, figures, trajectories) -> None:
            metrics.append({"step": step} | figures)
            times.append(time.perf_counter())

        asyncio.run(online(learner, play, group, steps=1 + STEPS, on_step=on_step))
        metrics.close()
    bench.report([bench.figure("a step", [b - a for a, b in itertools.pairwise(times)], "s", most=1)])


if __name__ == "__main__":
    main()
