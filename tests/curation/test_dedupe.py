"""curation/dedupe: exact and near repetitions."""

import random

import pytest

from etude.core import parts
from etude.core.errors import RecipeError
from etude.curation.dedupe import _first_of_each
from etude.trajectory import Episode, Message, ToolCall, Trajectory

dedupe = parts.load("curation/dedupe")


def one(name: str, text: str, *calls: ToolCall) -> Trajectory:
    t = Trajectory(name, name)
    t.episodes = [Episode(t.add(Message("assistant", text, calls), None))]
    return t


def ids(kept):
    return [t.id for t in kept]


def test_case_and_spacing_do_not_matter_but_numbers_do():
    rows = [one("a", "Pay 5 euros."), one("b", "pay  5\nEUROS."), one("c", "Pay 6 euros.")]
    assert ids(dedupe(rows, threshold=1.0)) == ["a", "c"]


def test_calls_count_as_text():
    rows = [one(n, "Look.", ToolCall("find", {"x": x})) for n, x in (("a", 1), ("b", 2), ("c", 1))]
    assert ids(dedupe(rows)) == ["a", "b"]


def test_threshold_by_hand():
    # 2-shingles of "assistant: p q r s" and "assistant: p q r t": 4 each, 3 shared, 5 together: similarity 3/5
    rows = [one("a", "p q r s"), one("b", "p q r t")]
    assert ids(dedupe(rows, threshold=0.6, shingle=2)) == ["a"]
    assert ids(dedupe(rows, threshold=0.61, shingle=2)) == ["a", "b"]


def test_within_a_group_the_tree_is_pruned(group):
    (after,) = dedupe([group("a", 1.0, 1.0, 0.0, answers=("Yes.", "yes.", "No way, never."))])
    assert [after.dialogue(e.leaf)[-1].content for e in after.episodes] == ["Yes.", "No way, never."]
    after.check()


def test_repetition_of_a_dropped_one_is_judged_by_what_is_kept():
    # b is near a and dropped; c is near b but not near a, and stays
    rows = [one("a", "p q r s t u"), one("b", "p q r s t v"), one("c", "p q r s w v")]
    assert ids(dedupe(rows, threshold=0.7, shingle=1)) == ["a", "c"]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75, 0.9])
def test_prefix_filter_misses_no_pair(threshold):
    rng = random.Random(0)
    texts = [tuple(rng.choice("abcdef") for _ in range(rng.randint(1, 9))) for _ in range(150)]
    kept: list[set] = []
    expected = []
    for text in texts:
        shingles = {text[i : i + 2] for i in range(max(len(text) - 1, 1))}
        expected.append(all(len(shingles & k) / len(shingles | k) < threshold - 1e-9 for k in kept))
        if expected[-1]:
            kept.append(shingles)
    assert _first_of_each(texts, threshold, 2) == expected
    assert 1 < sum(expected) < len(texts)


def test_threshold_must_be_a_share():
    with pytest.raises(RecipeError, match="threshold=0"):
        dedupe([], threshold=0)
