"""credit/group: GRPO and Dr. GRPO."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core import parts
from etude.core.errors import CreditError

group = parts.load("credit/group")
scores = st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=12)


def test_by_hand():
    # mean 0.25; deviations .75 -.25 -.25 -.25; sample variance (.5625 + 3 * .0625) / 3 = .25, standard deviation .5
    np.testing.assert_allclose(group(np.array([1.0, 0, 0, 0]), eps=0.0), [1.5, -0.5, -0.5, -0.5])
    np.testing.assert_allclose(group(np.array([1.0, 0, 0, 0]), eps=0.5), [0.75, -0.25, -0.25, -0.25])
    np.testing.assert_allclose(group(np.array([1.0, 0, 0, 0]), std=False), [0.75, -0.25, -0.25, -0.25])


def test_unscored_is_left_out_of_the_statistics():
    weight_G = group(np.array([np.nan, 1.0, 0, 0, 0, np.nan]))
    np.testing.assert_array_equal(weight_G[1:5], group(np.array([1.0, 0, 0, 0])))
    assert np.isnan(weight_G[[0, 5]]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3])
def test_equal_scores_give_exactly_zero(value):
    np.testing.assert_array_equal(group(np.full(7, value)), np.zeros(7))


def test_one_scored_episode_has_nothing_to_compare_with():
    assert np.isnan(group(np.array([1.0, np.nan]))).all()
    assert np.isnan(group(np.array([np.nan, np.nan]))).all()


def test_group_of_one_is_refused():
    with pytest.raises(CreditError, match=r"was given 1.*credit/outcome"):
        group(np.array([1.0]))


def test_infinite_score_is_refused():
    with pytest.raises(CreditError, match="-inf of episode 2"):
        group(np.array([0.0, 1.0, -np.inf]))


@given(scores, st.booleans())
def test_weights_sum_to_zero_and_ignore_a_shift(values, std):
    score_G = np.array(values)
    weight_G = group(score_G, std=std)
    assert abs(weight_G.sum()) < 1e-6
    np.testing.assert_allclose(group(score_G + 5.0, std=std), weight_G, atol=1e-6)


@given(scores, st.randoms(use_true_random=False))
def test_order_does_not_matter(values, random):
    score_G = np.array(values)
    order = random.sample(range(len(values)), len(values))
    np.testing.assert_allclose(group(score_G[order]), group(score_G)[order], atol=1e-6)
