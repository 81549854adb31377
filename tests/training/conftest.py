"""Policies with weights that can be looked at, and trees of tokens made by hand."""

import numpy as np
import pytest
import torch

from etude.training.learner import Learner
from etude.trajectory import Episode, Message, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401

Shape = dict[int, tuple[int | None, int, bool]]


def tree(shape: Shape, leaves: list[int], *, seed: int = 0, logprob: float | None = None) -> Trajectory:
    """A trajectory of random tokens. shape: node -> (parent, tokens, sampled); one episode per leaf."""
    rng, trajectory = np.random.default_rng(seed), Trajectory(f"t{seed}", "task")
    for n, (parent, T, sampled) in shape.items():
        known = {} if logprob is None or not sampled else {"logprob_T": np.full(T, logprob, np.float32)}
        ids_T = rng.integers(3, 250, T).astype(np.int32)
        assert n == trajectory.add(
            Message("assistant" if sampled else "user", str(n)),
            parent,
            ids_T=ids_T,
            sampled_T=np.full(T, sampled),
            version=0 if sampled else None,
            **known,
        )
    trajectory.episodes = [Episode(leaf) for leaf in leaves]
    return trajectory


@pytest.fixture
def dialogues() -> list[Trajectory]:
    """Six of one turn each, of different lengths, with weights of both signs."""
    made = []
    for i, (context, answer) in enumerate([(5, 4), (9, 2), (3, 12), (20, 7), (6, 6), (11, 3)]):
        trajectory = tree({0: (None, context, False), 1: (0, answer, True)}, [1], seed=i, logprob=-4.0)
        trajectory.weigh([1.0 - 0.5 * i])
        made.append(trajectory)
    return made


class Gradients:
    """Steps of a learner that stop short of moving it: `of(batch)` gives the gradient and the figures."""

    def __init__(self, learner: Learner):
        self.learner = learner

    def of(self, trajectories) -> tuple[torch.Tensor, dict[str, float]]:
        found: list[torch.Tensor] = []

        def keep(gradients: list[torch.Tensor]) -> float:
            found.extend(gradients)
            return 0.0

        self.learner._move, moved = keep, self.learner._move
        try:
            figures = self.learner.step(trajectories)
        finally:
            self.learner._move = moved
        return torch.cat([g.flatten() for g in found]), figures


def flat(model) -> torch.Tensor:
    """All parameters in one row."""
    return torch.cat([p.detach().flatten().float() for p in model.parameters()])
