"""credit/reinforce_pp: mean and deviation of the whole step."""

import numpy as np
import pytest

from etude.core import parts
from etude.core.errors import CreditError
from etude.training.online import give

reinforce_pp = parts.load("credit/reinforce_pp")


def weights(weights_of, *trajectories):
    return [row[0] for t in trajectories for row in weights_of(t)]


def test_by_hand(played, weights_of):
    step = [played([1, 1]), played([0, 0])]
    reinforce_pp(step, eps=0.0)
    # mean .5, sample variance 4 * .25 / 3 = 1/3
    np.testing.assert_allclose(weights(weights_of, *step), np.array([0.5, 0.5, -0.5, -0.5]) * 3**0.5, rtol=1e-6)


def test_the_baseline_is_the_group_s_mean_and_the_deviation_the_step_s(played, weights_of):
    scores = [[1, 0.5, 0], [0.2, 0.2, 0.8]]
    step = [played(row) for row in scores]
    reinforce_pp(step, baseline=True, eps=0.0)
    centred = np.concatenate([np.array(row) - np.mean(row) for row in scores])
    np.testing.assert_allclose(weights(weights_of, *step), centred / centred.std(ddof=1), atol=1e-6)
    easy = [played([1, 1]), played([0.1, 0.2, 0.7])]  # nothing is learnt from a group that agrees
    reinforce_pp(easy, baseline=True)
    assert weights(weights_of, easy[0]) == [0.0, 0.0]


def test_unscored_counts_nowhere(played, weights_of):
    step, without = [played([np.nan, 1]), played([0])], [played([1]), played([0])]
    give(reinforce_pp, step)
    give(reinforce_pp, without)
    assert np.isnan(weights(weights_of, step[0])[0])
    np.testing.assert_array_equal(weights(weights_of, *step)[1:], weights(weights_of, *without))
    alone = [played([1])]
    reinforce_pp(alone)
    assert np.isnan(weights(weights_of, *alone)).all()
    reinforce_pp([])


def test_what_it_refuses(played):
    with pytest.raises(CreditError, match="inf of episode 1"):
        reinforce_pp([played([0, np.inf])])
    with pytest.raises(CreditError, match="was given 1"):
        reinforce_pp([played([0])], baseline=True)
