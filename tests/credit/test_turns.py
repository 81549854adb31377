"""credit/turns: reward to go, compared within a turn's place or within the group."""

import numpy as np
import pytest

from etude.core import parts
from etude.training.online import give

turns = parts.load("credit/turns")


def test_by_hand(played, weights_of):
    # returns with gamma .5: (0 + .5 * 1, 1) and (1 + .5 * 0, 0)
    rows = [[{"reward": 0.0}, {"reward": 1.0}], [{"reward": 1.0}, {"reward": 0.0}]]
    trajectory = played([1, 1], rows)
    turns(trajectory, gamma=0.5, std=False)
    # place 0: .5 and 1, mean .75;  place 1: 1 and 0
    np.testing.assert_allclose(weights_of(trajectory), [[-0.25, 0.5], [0.25, -0.5]])
    turns(trajectory, gamma=0.5, std=False, over="group")
    np.testing.assert_allclose(weights_of(trajectory), [[-0.125, 0.375], [0.375, -0.625]])  # mean .625


def test_std_is_that_of_group(played, weights_of):
    trajectory = played([1, 0, 0, 0.5])
    turns(trajectory)
    expected = parts.load("credit/group")(trajectory.score_G)
    np.testing.assert_allclose([row[0] for row in weights_of(trajectory)], expected, atol=1e-6)


def test_the_last_turn_earns_what_the_score_holds_beyond_the_rewards(played, weights_of):
    rows = [[{}, {}], [{"reward": 0.25}, {"reward": None}]]
    trajectory = played([1, 0], rows)
    turns(trajectory, std=False)
    # returns: 1, 1 and 0.25 + (0 - 0.25), 0 - 0.25
    np.testing.assert_allclose(weights_of(trajectory), [[0.5, 0.625], [-0.5, -0.625]])


def test_named_scores_are_rewards_of_turns(played, weights_of):
    rows = [[{"scores": {"shaping": 0.5}}, {"scores": {"shaping": -0.5}}], [{}, {}]]
    trajectory = played([0, 0], rows)
    turns(trajectory, std=False, scores=["shaping"])
    np.testing.assert_allclose(weights_of(trajectory), [[0, -0.25], [0, 0.25]])
    turns(trajectory, std=False)
    np.testing.assert_allclose(weights_of(trajectory), [[0, 0], [0, 0]])


def test_a_turn_without_another_at_its_place_has_no_weight(played, weights_of):
    trajectory = played([1, 0, np.nan], [[{}, {}], [{}], [{}, {}]])
    turns(trajectory, std=False)
    np.testing.assert_array_equal(weights_of(trajectory)[0], [0.5, np.nan])
    np.testing.assert_array_equal(weights_of(trajectory)[1], [-0.5])
    assert np.isnan(weights_of(trajectory)[2]).all()


def test_turns_before_history_was_rewritten_are_turns(played, weights_of):
    trajectory = played([1, 0], [[{"reward": 1.0}, {}], [{}, {}]])
    # the first episode's second turn moves to a path with a copy of the first one
    leaf = trajectory.episodes[0].leaf
    first = trajectory.nodes[leaf].parent
    copy = trajectory.reuse(trajectory.nodes[first].message, 0)
    trajectory.nodes[leaf].parent, trajectory.episodes[0].rewritten = copy, [first]
    trajectory.nodes[leaf], trajectory.nodes[copy] = trajectory.nodes[copy], trajectory.nodes[leaf]
    trajectory.nodes[copy].parent, trajectory.episodes[0].leaf = leaf, copy
    turns(trajectory, std=False)
    assert trajectory.nodes[first].weight_T[-1] == 0.5  # returns 1 and 0
    assert trajectory.nodes[copy].weight_T[-1] == 0.0  # returns 0 and 0
    assert trajectory.nodes[leaf].weight_T is None


def test_give_hands_it_the_trajectory_and_old_weights_go(played, weights_of):
    trajectory = played([1, 0])
    trajectory.weigh([7.0, 7.0])
    give(parts.build("credit/turns", std=False), [trajectory])
    np.testing.assert_allclose(weights_of(trajectory), [[0.5], [-0.5]])


def test_an_infinite_score_is_refused(played):
    with pytest.raises(Exception, match="credit/turns: score inf of episode 1"):
        turns(played([0, np.inf]))


def gae(reward_T, value_T, gamma: float, lam: float) -> np.ndarray:
    """Generalised advantage estimation, Schulman et al. 2016, arXiv:1506.02438, eq. 16."""
    advantage_T, after = np.zeros(len(reward_T)), 0.0
    for t in reversed(range(len(reward_T))):
        following = value_T[t + 1] if t + 1 < len(reward_T) else 0.0
        after = reward_T[t] + gamma * following - value_T[t] + gamma * lam * after
        advantage_T[t] = after
    return advantage_T


@pytest.mark.exact(24)
def test_with_lambda_and_gamma_1_and_no_critic_gae_is_the_return_to_go(played, weights_of):
    rewards = [[0.5, 0.0, 1.0], [0.0, 0.25, -1.0]]
    trajectory = played([sum(row) for row in rewards], [[{"reward": r} for r in row] for row in rewards])
    turns(trajectory, over="group", std=False)
    returns = np.array([gae(row, [0.0] * 3, 1.0, 1.0) for row in rewards])
    np.testing.assert_allclose(returns, [np.cumsum(row[::-1])[::-1] for row in rewards])
    np.testing.assert_allclose(weights_of(trajectory), returns - returns.mean(), atol=1e-6)


@pytest.mark.exact(24)
async def test_turn_level_rewards_of_density_0_are_the_sparse_run(played, weights_of):
    """How much the turns earn of what they are worth is the scale of scoring/shaping."""
    worth = [[0.2, 0.7, 0.9], [0.0, 0.1, 0.3]]

    async def weights(scale: float | None):
        trajectory = played([1, 0], [[{"scores": {"near": w}} for w in row] for row in worth])
        if scale is not None:
            shape = parts.build("scoring/shaping", potential="near", scale=scale)
            for episode in trajectory.episodes:
                episode.score += await shape(trajectory, episode)
        turns(trajectory, scores=["shaping"])
        return weights_of(trajectory)

    np.testing.assert_array_equal(await weights(0.0), await weights(None))
    assert not np.allclose(await weights(1.0), await weights(None))
