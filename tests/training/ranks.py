"""Training that `test_distributed` does in one process and, by a launcher, in two: python -m tests.training.ranks."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.agents.loops import native
from etude.core.parts import build
from etude.credit import group
from etude.objectives import clipped, likelihood, preference
from etude.protocols import Sampling
from etude.rollout.collect import attach, begin, collect
from etude.training import checkpoint, distributed
from etude.training.learner import Learner
from etude.training.offline import offline
from etude.training.online import online
from etude.trajectory import Trajectory

from ..engine_fixtures import Talk
from .conftest import flat, tree

WORLD = Talk(score=lambda text: float(ord(text[0]) % 2 == 0) if text else 0.0)
CASES: dict[str, dict[str, Any]] = {
    "sft-data": {},
    "sft-shard": {"parallel": "shard"},
    "sft-shard-bfloat16": {"parallel": "shard", "dtype": "bfloat16", "weights": "lora"},
    "practise-data": {"objective": clipped(kl=0.1)},
    "practise-shard": {"objective": clipped(kl=0.1), "parallel": "shard"},
    "preference-shard": {"objective": preference(beta=1.0), "parallel": "shard", "weights": "lora"},
}


def dialogues() -> list[Trajectory]:
    """Six of one turn, of different lengths; five in a batch leave one for the next step, and a rank without any."""
    made = []
    for i, (context, answer) in enumerate([(5, 4), (9, 2), (3, 12), (20, 7), (6, 6), (11, 3)]):
        made.append(tree({0: (None, context, False), 1: (0, answer, True)}, [1], seed=i, logprob=-4.0))
        made[-1].weigh([1.0 - 0.25 * i])
    return made


def pairs() -> list[Trajectory]:
    made = [tree({0: (None, 7, False), 1: (0, 5, True), 2: (0, 3 + i, True)}, [1, 2], seed=i) for i in range(3)]
    for trajectory in made:
        trajectory.weigh([1.0, -1.0])
    return made


async def play(policy: Any, step: int) -> list[Trajectory]:
    """Each rank plays its share; all get all."""
    tasks, rank, n = WORLD.tasks("train", 5), distributed.rank(), distributed.ranks()
    begun = begin(tasks, group=4, seed=step)[rank::n]
    settings: Any = {"agent": native(), "sampling": Sampling(max_tokens=4), "begun": begun}
    played = distributed.gather(await collect(policy, tasks[rank::n], **settings))
    return [played[t % n][t // n] for t in range(len(tasks))]


def run(case: str, model: str, out: Path, *, start: bool = False) -> tuple[list[dict[str, float]], np.ndarray]:
    """Figures of each step and the weights at the end; the checkpoint half-way is kept, or with `start` begun from."""
    settings = {"objective": likelihood(), "dtype": "float32", **CASES[case]}
    policy, objective = build("policies/local", model=model, dtype=settings.pop("dtype")), settings.pop("objective")
    attach(policy)
    learner = Learner(policy, objective, lr=1e-3, micro_tokens=60, weight_decay=0.1, **settings)
    figures: list[dict[str, float]] = []
    if start:
        checkpoint.load(learner, out / case, "half")

    def on_step(step: int, found: dict[str, float], *_: Any) -> None:
        figures.append(found)
        if step == 2 and not start:
            checkpoint.save(learner, out / case, "half")

    begun = 2 if start else 0
    if case.startswith("practise"):
        asyncio.run(online(learner, lambda step: play(policy, step), group, steps=4, start=begun, on_step=on_step))
    else:
        data, batch = (pairs(), 2) if case.startswith("preference") else (dialogues(), 5)
        offline(learner, data, epochs=2, batch=batch, start=begun, on_step=on_step)
    return figures, flat(policy.model).numpy()


def main(model: str, out: str, *cases: str) -> None:
    torch.set_num_threads(1)
    with distributed.joined():
        for case in cases or CASES:
            figures, weights = run(case, model, Path(out))
            again, _ = run(case, model, Path(out), start=True)
            same = all(np.array_equal(weights, other) for other in distributed.gather(weights))
            if distributed.rank() == 0:
                np.save(Path(out) / f"{case}.npy", weights)
                told = {"figures": figures, "again": again, "same": same, "ranks": distributed.ranks()}
                (Path(out) / f"{case}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
