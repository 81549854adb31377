"""The offline loop: fixed trajectories, several passes."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from etude.protocols import Objective
from etude.training.learner import Learner, Row, rows
from etude.trajectory import Trajectory

Report = Callable[[int, dict[str, float]], None]


def samples_of(trajectories: Sequence[Trajectory], objective: Objective) -> list[list[Row]]:
    """The rows of each weighted episode, or of each trajectory where the objective compares its episodes."""
    whole = "groups" in objective.needs
    return [list(own) for _, own in groupby(rows(trajectories), key=lambda row: row.group if whole else row.episode)]


def steps_of(samples: int, *, epochs: int, batch: int) -> int:
    """Optimiser steps that `offline` will make."""
    return epochs * -(-samples // batch)


def offline(
    learner: Learner,
    trajectories: Sequence[Trajectory],
    *,
    epochs: int = 1,
    batch: int = 16,
    seed: int = 0,
    start: int = 0,
    on_step: Report = lambda step, figures: None,
) -> None:
    """Train on every weighted episode once per epoch, in an order fixed by `seed`.

    batch: episodes per optimiser step; trajectories, where the objective compares their episodes.
    start: steps already made; the run goes on as if it had not stopped.
    on_step: called after each step with its number, from 1, and its figures.
    """
    samples = samples_of(trajectories, learner.objective)
    per_epoch = steps_of(len(samples), epochs=1, batch=batch)
    for step in range(start, epochs * per_epoch):
        epoch, place = divmod(step, per_epoch)
        chosen = np.random.default_rng([seed, epoch]).permutation(len(samples))[place * batch : (place + 1) * batch]
        on_step(step + 1, learner.step_rows([row for i in chosen for row in samples[i]]) | {"epoch": epoch + 1})
