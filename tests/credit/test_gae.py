"""credit/gae: advantages as the sum of discounted surprises, and the returns a critic should have expected."""

import numpy as np
import pytest

from etude.core import parts
from etude.core.errors import CreditError

gae = parts.load("credit/gae")


def valued(*values, **fields):
    """A turn with what a critic expected before each of its two sampled tokens."""
    return {"value_T": np.array([np.nan, *values], np.float32), **fields}


def of(trajectory, name):
    nodes = [trajectory.nodes[n] for n in trajectory.path(trajectory.episodes[0].leaf)]
    return np.concatenate([getattr(node, name)[1:] for node in nodes if node.sampled])


def test_the_sum_of_discounted_surprises(played):
    value_T, reward_T, gamma, lam = np.array([0.5, 0.25, -0.5, 1.0]), np.array([0, 0.25, 0, 0.75]), 0.9, 0.8
    # the score is 1: the first turn has 0.25 of it, and the last token the rest, whatever reward its turn has
    trajectory = played([1], [[valued(0.5, 0.25, reward=0.25), valued(-0.5, 1.0, reward=9.0)]])
    gae([trajectory], gamma=gamma, lam=lam, whiten=False)
    surprise_T = reward_T + gamma * np.append(value_T[1:], 0) - value_T
    expected_T = [sum((gamma * lam) ** k * surprise_T[t + k] for k in range(4 - t)) for t in range(4)]
    np.testing.assert_allclose(of(trajectory, "weight_T"), expected_T, rtol=1e-6)
    np.testing.assert_allclose(of(trajectory, "return_T"), expected_T + value_T, rtol=1e-6)


def test_with_lam_1_the_return_is_what_came_and_a_perfect_critic_leaves_no_weight(played):
    trajectory = played([1], [[valued(0.2, 0.4), valued(0.1, -3.0)]])
    gae([trajectory], lam=1.0, whiten=False)
    np.testing.assert_allclose(of(trajectory, "return_T"), 1.0, atol=1e-6)
    perfect = played([1], [[valued(1.0, 1.0), valued(1.0, 1.0)]])
    gae([perfect], lam=0.3, whiten=False)
    np.testing.assert_allclose(of(perfect, "weight_T"), 0.0, atol=1e-7)


def test_the_weights_of_a_step_are_whitened_together(played):
    trajectories = [played([1], [[valued(0.5, 0.25)]]), played([0], [[valued(0.0, 2.0)]])]
    gae(trajectories)
    weight_N = np.concatenate([of(t, "weight_T") for t in trajectories])
    assert abs(weight_N.mean()) < 1e-6
    np.testing.assert_allclose(weight_N.std(), 1.0, rtol=1e-5)
    assert len({len(np.unique(of(t, "weight_T"))) for t in trajectories}) == 1


def test_a_shared_token_has_the_sum_of_its_advantages_and_the_mean_of_its_returns(played):
    trajectory = played([1], [[valued(0.0, 0.0), valued(0.0, 0.0)]])
    first = trajectory.nodes[trajectory.episodes[0].leaf].parent
    assert first is not None
    trajectory.episodes.append(type(trajectory.episodes[0])(first, score=0.5))
    gae([trajectory], lam=1.0, whiten=False)
    np.testing.assert_allclose(trajectory.nodes[first].weight_T[1:], 1.5)
    np.testing.assert_allclose(trajectory.nodes[first].return_T[1:], 0.75)


def test_unscored_episodes_have_no_weight(played):
    trajectory = played([np.nan], [[valued(0.0, 0.0)]])
    gae([trajectory])
    assert trajectory.nodes[-1].weight_T is None or np.isnan(trajectory.nodes[-1].weight_T).all()


def test_no_critic_is_said(played):
    with pytest.raises(CreditError, match=r"objective: \{clipped: \{value: 0\.5\}\}"):
        gae([played([1])])
