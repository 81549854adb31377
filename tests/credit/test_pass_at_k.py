"""credit/pass_at_k: against all subsets, and against the gradient of the expected best of k."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core import parts
from etude.core.errors import CreditError

pass_at_k = parts.load("credit/pass_at_k")


def by_subsets(scores, k):
    """n/C(n,k) times the sum over the sets with i of (best of the set - best of the set without i)."""
    n = len(scores)
    subsets = list(itertools.combinations(range(n), k))
    gain = [
        sum(max(scores[j] for j in s) - max(scores[j] for j in s if j != i) for s in subsets if i in s)
        for i in range(n)
    ]
    return np.array(gain) * n / len(subsets)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=7), st.data())
def test_is_the_mean_over_all_subsets(scores, data):
    k = data.draw(st.integers(2, len(scores)))
    np.testing.assert_allclose(pass_at_k(np.array(scores), k=k), by_subsets(scores, k), atol=1e-9)


@pytest.mark.parametrize("k", [2, 3])
def test_its_gradient_is_that_of_the_best_of_k(k):
    # a policy over three answers with scores 0, 0.3, 1: all groups of 4 are enumerated, so the expectation is exact
    score_A, logit_A = np.array([0.0, 0.3, 1.0]), np.array([0.2, -0.4, 0.1])

    def p(logit_A):
        return np.exp(logit_A) / np.exp(logit_A).sum()

    def best_of_k(logit_A):
        return sum(np.prod(p(logit_A)[list(s)]) * score_A[list(s)].max() for s in itertools.product(range(3), repeat=k))

    true_A = [(best_of_k(logit_A + d) - best_of_k(logit_A - d)) / 2e-6 for d in np.eye(3) * 1e-6]
    expected_A = np.zeros(3)
    for group in itertools.product(range(3), repeat=4):
        weight_G = pass_at_k(score_A[list(group)], k=k)
        grad_A = sum(w / 4 * (np.eye(3)[a] - p(logit_A)) for w, a in zip(weight_G, group, strict=True))
        expected_A += np.prod(p(logit_A)[list(group)]) * grad_A
    np.testing.assert_allclose(expected_A, true_A, atol=1e-8)


def test_a_rare_success_counts_more():
    # k = 2 of 4: alone, a success is the only one in 3 of 6 sets, times 4 episodes; two share 2 of 6 each
    np.testing.assert_allclose(pass_at_k(np.array([0.0, 1, 0, 0]), k=2), [0, 2, 0, 0])
    np.testing.assert_allclose(pass_at_k(np.array([0.0, 1, 1, 0]), k=2), [0, 4 / 3, 4 / 3, 0])
    np.testing.assert_array_equal(pass_at_k(np.array([1.0, 1, 1, 1]), k=2), np.zeros(4))


def test_unscored_is_in_no_set():
    np.testing.assert_allclose(pass_at_k(np.array([np.nan, 1.0, 0, 0]), k=2), [np.nan, 2, 0, 0])
    assert np.isnan(pass_at_k(np.array([np.nan, 1.0, np.nan]), k=2)).all()


def test_what_it_refuses():
    for k in (1, 4):
        with pytest.raises(CreditError, match=f"k is {k} in a group of 3"):
            pass_at_k(np.array([0.0, 1, 0]), k=k)
    with pytest.raises(CreditError, match="inf of episode 0"):
        pass_at_k(np.array([np.inf, 1, 0]), k=2)
