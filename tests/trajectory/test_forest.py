"""Sequences laid out as trees: each reads as itself, what they share is there once, no tree is too large."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.trajectory.forest import batches, common, forest

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)


def looked_at(tree) -> np.ndarray:
    """bool [L, L]: each token's ancestors and itself, as the tree's runs give them."""
    may_LL, starts, at = np.zeros((len(tree.ids_L), len(tree.ids_L)), bool), [], 0
    for length, ancestors in tree.runs():
        for run, count in ancestors:
            may_LL[at : at + length, starts[run] : starts[run] + count] = True
        may_LL[at : at + length, at : at + length] = np.tri(length, dtype=bool)
        starts.append(at)
        at += length
    assert at == len(tree.ids_L)
    return may_LL


@given(SEQUENCES, st.integers(1, 40))
def test_every_sequence_is_a_path_that_sees_itself_alone(ids, most):
    sequences = [np.array(row) for row in ids]
    trees = forest(sequences, most)
    assert sorted(r for tree in trees for r in tree.rows) == list(range(len(sequences)))
    for tree in trees:
        assert len(tree.rows) == 1 or len(tree.ids_L) <= most
        may_LL = looked_at(tree)
        for r, index_P in zip(tree.rows, tree.index, strict=True):
            np.testing.assert_array_equal(tree.ids_L[index_P], sequences[r])
            np.testing.assert_array_equal(tree.position_L[index_P], np.arange(len(index_P)))
            for t, place in enumerate(index_P):
                np.testing.assert_array_equal(np.flatnonzero(may_LL[place]), np.sort(index_P[: t + 1]))


def test_branches_of_branches_share_all_they_have():
    root, left = [7] * 10, [7] * 10 + [1] * 10
    sequences = [np.array(s) for s in (left + [2] * 10, root + [5] * 10, left + [3] * 10)]
    (tree,) = forest(sequences, 100)
    assert len(tree.ids_L) == 50
    assert tree.rows == [0, 2, 1]


@pytest.mark.parametrize(("shared", "trees"), [(9, 2), (10, 1)])
def test_a_beginning_is_shared_where_that_is_cheaper(shared, trees):
    """Alone the second of 40 costs 40 (1 + 20 / 40) = 60, and as a branch of L own tokens L (1 + 40 / 40)."""
    a, b = np.array([1] * shared + [2] * (40 - shared)), np.array([1] * shared + [3] * (40 - shared))
    assert len(forest([a, b], 1000, reach=40)) == trees


def test_ids_sort_as_numbers():
    """256 is after 255, though its lowest byte is 0: neighbours in order are those that begin most alike."""
    sequences = [np.array([n, n, n, n, x]) for x in (1, 2) for n in (255, 256, 65536)]
    assert sorted(tree.rows for tree in forest(sequences, 100)) == [[0, 3], [1, 4], [2, 5]]


def test_batches_are_full_and_not_over():
    trees = forest([np.arange(n) + 100 * n for n in (27, 9, 15, 11, 14, 12)], 1)
    made = [[len(tree.ids_L) for tree in batch] for batch in batches([[tree] for tree in trees], 30)]
    assert made == [[27], [15, 14], [12, 11], [9]]


def test_units_stay_together_and_those_of_like_size_come_together():
    trees = {len(tree.ids_L): tree for tree in forest([np.arange(n) + 100 * n for n in (27, 9, 15, 11, 14, 12)], 1)}
    units = [[trees[n] for n in unit] for unit in ((9, 15), (27, 14), (11,), (12,))]
    made = [[len(tree.ids_L) for tree in batch] for batch in batches(units, 45)]
    assert made == [[27, 14], [9, 15, 12], [11]]


def test_common_beginning():
    assert common(np.array([1, 2, 3]), np.array([1, 2])) == 2
    assert common(np.array([4]), np.array([1, 2])) == 0
