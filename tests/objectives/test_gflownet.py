"""objectives/gflownet: zero where sampling is in proportion to the reward, and only there."""

import numpy as np
import pytest
import torch

from etude.core.errors import PartError
from etude.core.parts import build
from etude.objectives import gflownet
from etude.protocols import Batch
from etude.training.learner import Learner

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from ..training.conftest import flat, tree

# an enumerable tree: two first tokens; below them two and three second ones; five leaves with these rewards
REWARD = torch.tensor([0.1, 0.4, 0.05, 1.0, 0.3], dtype=torch.float64)
FIRST = [0, 0, 1, 1, 1]


def tabular(reward=REWARD) -> torch.Tensor:
    """float64 [5, 2]; log-probability of each leaf's two tokens at P(x) = R(x) / sum R."""
    branch = torch.stack([reward[:2].sum(), reward[2:].sum()])[FIRST]
    return torch.stack([branch / reward.sum(), reward / branch], 1).log()


def make(logprob_E2, reward=REWARD, weight=1.0) -> Batch:
    E = len(logprob_E2)
    logprob_N = logprob_E2.flatten().clone().requires_grad_()
    return Batch(
        logprob_N=logprob_N,
        weight_N=torch.full((2 * E,), weight, dtype=torch.float64),
        old_logprob_N=logprob_N.detach(),
        sequence_N=torch.arange(E).repeat_interleave(2),
        length_S=torch.full((E,), 2),
        tokens=2 * E,
        sequences=E,
        max_length=8,
        episode_S=torch.arange(E),
        group_S=torch.zeros(E, dtype=torch.long),
        groups=1,
        score_S=reward,
    )


def test_variance_is_zero_at_the_tabular_solution():
    batch = make(tabular())
    loss, metrics = build("objectives/gflownet")(batch)
    assert loss.item() < 1e-8
    assert metrics["log_z"] == pytest.approx(REWARD.sum().log().item())
    assert torch.autograd.grad(loss, batch.logprob_N)[0].abs().max() < 1e-8
    uniform = torch.full((5, 2), np.log(0.45), dtype=torch.float64)
    assert build("objectives/gflownet")(make(uniform))[0].item() > 0.1


def test_balance_is_zero_at_the_tabular_solution_with_its_z():
    objective = build("objectives/gflownet", loss="balance", rate=2.0)
    (scaled,) = objective.parameters()
    assert objective(make(tabular()))[0].item() == pytest.approx(REWARD.sum().log().item() ** 2)
    scaled.data.fill_(REWARD.sum().log().item() / 2)
    loss, _ = objective(make(tabular()))
    assert loss.item() < 1e-8
    loss.backward()
    assert abs(scaled.grad.item()) < 1e-5


def test_the_scale_of_rewards_does_not_matter():
    logprob_E2 = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    batches = [make(logprob_E2, scale * REWARD) for scale in (1.0, 7.0)]
    losses = [build("objectives/gflownet")(batch)[0] for batch in batches]
    assert losses[0].item() == pytest.approx(losses[1].item())
    gradients = [torch.autograd.grad(loss, batch.logprob_N)[0] for loss, batch in zip(losses, batches, strict=True)]
    torch.testing.assert_close(*gradients)
    zeta = logprob_E2.sum(1) - REWARD.log()
    assert losses[0].item() == pytest.approx(zeta.var(unbiased=False).item())


def test_descent_finds_the_distribution():
    """From any start, on all leaves: L1 distance to R / sum R goes to zero, which seeking the maximum never does."""
    logit = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logit], lr=0.1)
    for _ in range(300):
        batch = make(tabular())
        batch.logprob_N = torch.stack([logit.log_softmax(0), torch.zeros(5)], 1).flatten()
        optimiser.zero_grad()
        build("objectives/gflownet")(batch)[0].backward()
        optimiser.step()
    assert (logit.softmax(0) - REWARD / REWARD.sum()).abs().sum() < 1e-3


def test_unscored_episodes_and_an_episode_alone_say_nothing():
    reward = REWARD.clone()
    reward[1:] = np.nan
    batch = make(torch.full((5, 2), -1.0, dtype=torch.float64), reward)
    loss, _ = build("objectives/gflownet")(batch)
    assert (torch.autograd.grad(loss, batch.logprob_N)[0] == 0).all()


def test_settings():
    with pytest.raises(PartError, match="floor=0 must be above 0"):
        build("objectives/gflownet", floor=0)
    with pytest.raises(PartError, match=r"loss='varince'; did you mean 'variance'"):
        build("objectives/gflownet", loss="varince")
    batch = make(tabular())
    batch.score_S = None
    with pytest.raises(PartError, match="no scores"):
        build("objectives/gflownet")(batch)


# -- an objective that learns: the learner moves and keeps it -------------------------------------------------------


def practised() -> list:
    trajectory = tree({0: (None, 5, False), 1: (0, 4, True), 2: (0, 3, True)}, [1, 2], logprob=-4.0)
    for episode, score in zip(trajectory.episodes, (1.0, 0.2), strict=True):
        episode.score = score
    trajectory.weigh([1.0, 1.0])
    return [trajectory]


def test_the_learner_moves_and_keeps_what_the_objective_learns(load_policy, tmp_path):  # noqa: F811
    learner, other = (Learner(load_policy(), gflownet(loss="balance"), lr=1e-3) for _ in range(2))
    learner.step(practised())
    learner.step(practised())
    moved = learner.own[0].item()
    assert abs(moved) == pytest.approx(2e-3, rel=0.2), "Adam's first steps are as long as lr"
    learner.save(tmp_path)
    other.load(tmp_path)
    assert other.own[0].item() == moved
    for each in (learner, other):
        each.step(practised())
    assert learner.own[0].item() == other.own[0].item() != moved
    assert torch.equal(flat(learner.policy.model), flat(other.policy.model))
