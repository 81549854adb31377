"""A critic that shares the trunk: what it expects, and that it learns to expect it."""

import numpy as np
import pytest
import torch

from etude.core.errors import PartError
from etude.credit import gae
from etude.objectives import clipped
from etude.training.learner import Learner

from .conftest import tree

SHAPE = {0: (None, 6, False), 1: (0, 3, True), 2: (1, 2, False), 3: (2, 4, True), 4: (1, 5, True)}


def scored(score=(1.0, 0.0), seed=0):
    trajectory = tree(SHAPE, [3, 4], seed=seed)
    for episode, own in zip(trajectory.episodes, score, strict=True):
        episode.score = own
    return trajectory


def test_a_value_is_the_head_on_the_state_before_each_sampled_token(policy):
    learner = Learner(policy, clipped(value=0.5, head_rate=2.0))
    (head,) = learner.own
    with torch.no_grad():
        head.copy_(torch.randn(len(head), generator=torch.Generator().manual_seed(0)))
    trajectory = scored()
    learner.evaluate([trajectory])
    ids_P = np.concatenate([trajectory.nodes[n].ids_T for n in trajectory.path(3)])
    with torch.no_grad():  # an independent road: the whole model's last hidden states
        states_PC = policy.model(torch.tensor(ids_P[None]), output_hidden_states=True).hidden_states[-1][0]
    value_P = (states_PC @ head[:-1] + head[-1]).detach().numpy() * 2.0
    np.testing.assert_allclose(trajectory.nodes[1].value_T, value_P[5:8], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trajectory.nodes[3].value_T, value_P[10:14], rtol=1e-4, atol=1e-5)
    assert trajectory.nodes[2].value_T is None
    assert len(trajectory.nodes[4].value_T) == 5


def test_the_critic_learns_what_came_of_it(policy):
    learner, errors = Learner(policy, clipped(value=0.5, head_rate=10.0), lr=3e-3), []
    for _ in range(20):
        trajectories = [scored((1.0, 1.0), seed) for seed in range(3)]
        learner.evaluate(trajectories)
        gae(trajectories, lam=1.0)
        errors.append(learner.step(trajectories)["value_error"])
    assert errors[0] == pytest.approx(1.0)  # a new head expects nothing, and 1 came
    assert errors[-1] < 0.3


def test_its_head_is_kept_in_checkpoints(load_policy, tmp_path):
    def learner():
        return Learner(load_policy(), clipped(value=0.5), lr=1e-2)

    first, trajectory = learner(), scored()
    first.evaluate([trajectory])
    gae([trajectory])
    first.step([trajectory])
    assert first.own[0].abs().sum() > 0
    (tmp_path / "checkpoint").mkdir()
    first.save(tmp_path / "checkpoint")
    second = learner()
    second.load(tmp_path / "checkpoint")
    assert torch.equal(second.own[0], first.own[0])


def test_a_critic_without_returns_is_refused(policy, dialogues):
    with pytest.raises(PartError, match=r"credit: gae, or value: 0"):
        Learner(policy, clipped(value=0.5)).step(dialogues)


def test_without_a_critic_nothing_is_expected(policy):
    trajectory = scored()
    Learner(policy, clipped()).evaluate([trajectory])
    assert all(node.value_T is None for node in trajectory.nodes)
