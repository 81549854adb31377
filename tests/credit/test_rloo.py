"""credit/rloo: leave-one-out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core import parts
from etude.core.errors import CreditError

rloo = parts.load("credit/rloo")


def test_by_hand():
    # 1 - mean(0, .5) = .75;  0 - mean(1, .5) = -.75;  .5 - mean(1, 0) = 0
    np.testing.assert_allclose(rloo(np.array([1.0, 0.0, 0.5])), [0.75, -0.75, 0.0])


def test_unscored_is_in_nobodys_baseline():
    np.testing.assert_allclose(rloo(np.array([1.0, np.nan, 0.0, 0.5])), [0.75, np.nan, -0.75, 0.0])


@pytest.mark.exact(24)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9))
def test_adds_up_to_nothing_and_is_a_stretched_deviation(values):
    weight_G, n = rloo(np.array(values)), len(values)
    assert weight_G.sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(weight_G, n / (n - 1) * (np.array(values) - np.mean(values)), atol=1e-9)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9))
def test_is_the_score_less_the_mean_of_the_others(values):
    by_definition = [r - np.mean(values[:i] + values[i + 1 :]) for i, r in enumerate(values)]
    np.testing.assert_allclose(rloo(np.array(values)), by_definition, atol=1e-9)


def test_equal_scores_give_exactly_zero():
    np.testing.assert_array_equal(rloo(np.full(3, 0.1)), np.zeros(3))


def test_one_scored_episode_has_nobody_to_leave_out():
    assert np.isnan(rloo(np.array([1.0, np.nan]))).all()
    with pytest.raises(CreditError, match="was given 1"):
        rloo(np.array([1.0]))
