"""tools/ranking: fusion by hand, measures against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import ScoreError
from etude.tools.ranking import average_precision, ndcg, recall, reciprocal, reciprocal_rank, weighted


def test_reciprocal_by_hand():
    found = reciprocal([["a", "b", "c"], ["c", "a"]])
    assert dict(found) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})
    assert [key for key, _ in found] == ["a", "c", "b"]
    assert [key for key, _ in reciprocal([["x", "y"], ["y", "x"]])] == ["x", "y"]  # equal: as they first came


def test_weighted_by_hand():
    dense, exact = [("a", 0.9), ("b", 0.5), ("c", 0.1)], [("c", 12.0), ("b", 10.0), ("d", 4.0)]
    assert dict(weighted([dense, exact], [3, 1])) == pytest.approx({"a": 3.0, "b": 1.5 + 0.75, "c": 1.0, "d": 0.0})
    assert weighted([[], [("x", 2.0)]], [0.5, 0.5]) == [("x", 0.5)]  # one score has no spread


scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(scores, scores, st.floats(0.01, 9))
def test_all_weight_on_one_list_is_that_list(one, other, weight):
    """Even where two scores are so near that scaling makes them one."""
    first = [(f"a{n}", s) for n, s in enumerate(sorted(one, reverse=True))]
    second = [(f"a{n * 7 % 31}", s) for n, s in enumerate(sorted(other, reverse=True))]
    assert [key for key, _ in weighted([first, second], [weight, 0])] == [key for key, _ in first]
    assert [key for key, _ in weighted([first, second], [0, weight])] == [key for key, _ in second]


def test_measures_by_hand():
    ranking, relevant = ["x", "a", "y", "b"], {"a", "b", "c"}
    assert recall(ranking, relevant, 3) == 1 / 3
    assert reciprocal_rank(ranking, relevant) == 1 / 2
    assert reciprocal_rank(["x"], relevant) == 0
    assert average_precision(ranking, relevant) == pytest.approx((1 / 2 + 2 / 4) / 3)
    gain = {"a": 3.0, "b": 1.0}
    assert ndcg(ranking, gain, 4) == pytest.approx((3 / np.log2(3) + 1 / np.log2(5)) / (3 + 1 / np.log2(3)))
    assert ndcg(["a", "b"], gain, 2) == 1
    for measure in (lambda: recall(ranking, set(), 1), lambda: ndcg(ranking, {"a": 0.0}, 1)):
        with pytest.raises(ScoreError, match="nothing is relevant"):
            measure()


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    gain_N, score_N = rng.integers(0, 4, 30), rng.permutation(30).astype(float)
    ranking = [int(n) for n in np.argsort(-score_N)]
    for k in (1, 5, 30):
        ours = ndcg(ranking, dict(enumerate(gain_N.tolist())), k)
        assert ours == pytest.approx(metrics.ndcg_score([gain_N], [score_N], k=k))
    relevant = set(np.flatnonzero(gain_N > 1).tolist())
    assert average_precision(ranking, relevant) == pytest.approx(metrics.average_precision_score(gain_N > 1, score_N))
