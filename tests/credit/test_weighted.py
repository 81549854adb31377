"""credit/weighted: GDPO and MO-GRPO."""

import numpy as np
import pytest

from etude.core import parts
from etude.core.errors import CreditError

weighted = parts.load("credit/weighted")
group = parts.load("credit/group")


@pytest.fixture
def scored(played):
    def make(**scores):
        rows = list(zip(*scores.values(), strict=True))
        trajectory = played([sum(row) for row in rows])
        for episode, row in zip(trajectory.episodes, rows, strict=True):
            episode.scores = dict(zip(scores, row, strict=True))
        return trajectory

    return make


def weights(weights_of, *trajectories):
    return [row[0] for t in trajectories for row in weights_of(t)]


def test_each_score_is_normalised_before_the_sum(scored, weights_of):
    right, short = [1.0, 0, 0, 1], [-0.01, -0.02, -0.03, -0.04]
    trajectory = scored(right=right, short=short)
    weighted([trajectory], weights={"right": 1.0, "short": 0.5}, batch=False)
    expected = group(np.array(right)) + 0.5 * group(np.array(short))
    np.testing.assert_allclose(weights(weights_of, trajectory), expected, rtol=1e-5)


def test_two_scores_that_grpo_takes_for_one_stay_apart(scored, weights_of):
    # the paper's example: sums (0, 1) and (0, 2) give GRPO the same weights
    step = [scored(a=[0.0, 1], b=[0.0, 0]), scored(a=[0.0, 1], b=[0.0, 1])]
    weighted(step, weights={"a": 1.0, "b": 1.0}, batch=False, eps=0.0 + 1e-12)
    half = 0.5 / 0.5**0.5  # deviation over the sample standard deviation of 0 and 1
    np.testing.assert_allclose(weights(weights_of, *step), [-half, half, -2 * half, 2 * half], rtol=1e-6)


def test_the_sum_is_normalised_over_the_step(scored, weights_of):
    step = [scored(a=[0.0, 1], b=[0.0, 0]), scored(a=[0.0, 1], b=[0.0, 1])]
    weighted(step, weights={"a": 1.0, "b": 1.0}, batch=False)
    before = np.array(weights(weights_of, *step))
    weighted(step, weights={"a": 1.0, "b": 1.0})
    expected = (before - before.mean()) / (before.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(weights(weights_of, *step), expected, rtol=1e-5)
    same = [scored(a=[0.0, 0.1, 0.7], b=[0.0, 0.3, 0.2]), scored(a=[0.1, 0.1, 0.1], b=[0.2, 0.2, 0.2])]
    weighted(same, weights={"a": 1.0, "b": 1.0})
    assert weights(weights_of, same[1]) == [0.0, 0.0, 0.0]  # exactly: nothing is learnt from a group that agrees


def test_unscored_counts_nowhere(scored, weights_of):
    trajectory = scored(a=[0.0, np.nan, 1])
    trajectory.episodes[1].scores = {}
    weighted([trajectory], weights={"a": 1.0}, batch=False)
    np.testing.assert_allclose(weights(weights_of, trajectory), group(np.array([0, np.nan, 1.0])), rtol=1e-5)


def test_what_it_refuses(scored):
    with pytest.raises(CreditError, match="trajectory t has no score 'b'; it has: a"):
        weighted([scored(a=[0.0, 1])], weights={"b": 1.0})
    with pytest.raises(CreditError, match="was given 1"):
        weighted([scored(a=[0.0])], weights={"a": 1.0})
