"""credit/polychromic: a set is worth its mean score times how many kinds are in it."""

import itertools
import sys

import numpy as np
import pytest

from etude.core import parts
from etude.core.errors import CreditError
from etude.trajectory import Episode, Message, ToolCall, Trajectory

polychromic = parts.load("credit/polychromic")
worth, advantages = (getattr(sys.modules[polychromic.__module__], name) for name in ("worth", "_advantages"))


def first(weights):
    return [row[0] for row in weights]


def test_by_hand(played, weights_of):
    # kinds a a b, scores 1 1 0, sets of 2:  f(aa) = 1 * 1/2 = .5,  f(ab) = .5 * 1 = .5 twice; all equal
    trajectory = played([1, 1, 0], [["a"], ["a"], ["b"]])
    polychromic(trajectory, n=2)
    assert first(weights_of(trajectory)) == [0.0, 0.0, 0.0]
    # scores 1 0 1: f(12) = .5 * 1/2 = .25,  f(13) = 1 * 1 = 1,  f(23) = .5;  mean 7/12
    trajectory = played([1, 0, 1], [["a"], ["a"], ["b"]])
    polychromic(trajectory, n=2)
    expected = [(0.25 + 1) / 2 - 7 / 12, (0.25 + 0.5) / 2 - 7 / 12, (1 + 0.5) / 2 - 7 / 12]
    np.testing.assert_allclose(first(weights_of(trajectory)), expected, atol=1e-7)


def test_a_failure_of_a_new_kind_may_count_more_than_another_success(played, weights_of):
    trajectory = played([1, 1, 1, 0], [["a"], ["a"], ["a"], ["b"]])
    polychromic(trajectory, n=3)
    # f(aaa) = 1/3;  f(aab) = 2/3 * 2/3 = 4/9 in the three sets with b
    weight_G = first(weights_of(trajectory))
    assert weight_G[3] == pytest.approx(4 / 9 - (1 / 3 + 3 * 4 / 9) / 4)
    assert weight_G[3] > 0 > weight_G[0]


def test_one_kind_is_group_credit_up_to_a_factor(played, weights_of):
    score_G = np.array([1.0, 0.2, 0.6, 0.0])
    trajectory = played(score_G)
    polychromic(trajectory, n=2)
    # all sets have diversity 1/2; a set with i exceeds the mean by (r_i - mean) (1/2 - 1/2 * 1/3)
    np.testing.assert_allclose(first(weights_of(trajectory)), (score_G - 0.45) / 6, atol=1e-7)


def test_unscored_is_in_no_set(played, weights_of):
    with_failed = played([1, np.nan, 0, 1], [["a"], ["c"], ["a"], ["b"]])
    polychromic(with_failed, n=2)
    without = played([1, 0, 1], [["a"], ["a"], ["b"]])
    polychromic(without, n=2)
    weight_G = first(weights_of(with_failed))
    assert np.isnan(weight_G[1])
    assert [weight_G[g] for g in (0, 2, 3)] == first(weights_of(without))
    few = played([1, np.nan, 0])
    polychromic(few, n=2)
    assert np.isnan(first(weights_of(few))).all()


@pytest.mark.parametrize(("kind", "kinds"), [("tools", 1), ("calls", 2), ("text", 3)])
def test_what_makes_a_kind(kind, kinds):
    trajectory = Trajectory("t", "task")
    turns = [("x", 1), ("x", 1), ("x", 2), ("y", 2)]
    for text, argument in turns:
        leaf = trajectory.add(Message("assistant", text, (ToolCall("f", {"a": argument}),)), None, version=0)
        trajectory.nodes[leaf].ids_T, trajectory.nodes[leaf].sampled_T = np.zeros(1, np.int32), np.ones(1, bool)
        trajectory.episodes.append(Episode(leaf, score=1.0))
    polychromic(trajectory, n=3, kind=kind)
    labels = {1: [0, 0, 0, 0], 2: [0, 0, 1, 1], 3: [0, 0, 1, 2]}[kinds]
    f = {s: len({labels[g] for g in s}) / 3 for s in itertools.combinations(range(4), 3)}
    expected = [np.mean([v for s, v in f.items() if g in s]) - np.mean(list(f.values())) for g in range(4)]
    np.testing.assert_allclose([n.weight_T[0] for n in trajectory.nodes], expected, atol=1e-7)


def test_what_it_refuses(played):
    for n in (0, 3):
        with pytest.raises(CreditError, match=f"n is {n} in a group of 3"):
            polychromic(played([1, 0, 0]), n=n)
    with pytest.raises(CreditError, match=r"-0\.5 is below 0"):
        polychromic(played([1, -0.5, 0]), n=2)
    with pytest.raises(CreditError, match="184756 sets of 10"):
        polychromic(played([1] * 20), n=10)


@pytest.mark.exact(67)
def test_a_set_of_one_is_the_score_minus_the_baseline_of_the_group(played, weights_of):
    score_G = np.array([1.0, 0.25, 0.5, 0.0])
    trajectory = played(score_G, [["a"], ["b"], ["a"], ["c"]])
    polychromic(trajectory, n=1)
    np.testing.assert_allclose(first(weights_of(trajectory)), score_G - score_G.mean(), atol=1e-7)


@pytest.mark.exact(67)
def test_what_a_set_is_worth():
    assert worth([1.0, 1.0, 1.0, 1.0], "aaaa") == 0.25, "identical episodes have the least diversity, 1 / n"
    assert worth([1.0, 1.0, 1.0, 1.0], "abcd") == 1.0
    assert worth([0.0, 0.0, 0.0], "abc") == 0.0
    pairs = list(zip([0.1, 0.7, 0.4], "aba", strict=True))
    assert len({worth(*zip(*order, strict=True)) for order in itertools.permutations(pairs)}) == 1


@pytest.mark.exact(67)
def test_advantages_of_the_sets_add_up_to_zero():
    f = np.random.default_rng(0).random(20)
    assert advantages(f).sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(advantages(f), f - f.mean(), atol=1e-12)
    assert (advantages(np.full(7, 0.1)) == 0).all()


@pytest.mark.exact(67)
def test_a_group_that_fails_altogether_teaches_nothing(played, weights_of):
    trajectory = played([0, 0, 0, 0], [["a"], ["b"], ["c"], ["d"]])
    polychromic(trajectory, n=2)
    assert first(weights_of(trajectory)) == [0.0] * 4
