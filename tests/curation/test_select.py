"""curation/select: so many, of each kind, none like another."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude import curation
from etude.core.errors import RecipeError
from etude.curation.select import _tfidf
from etude.trajectory import Episode, Message, Trajectory

WORDS = [f"word{i}" for i in range(20)]


def pool(*domains: str, reward: float = 1.0, words=WORDS) -> list[Trajectory]:
    rows = []
    for i, domain in enumerate(domains):
        t = Trajectory(f"{domain}{i}", f"task{i}", meta={"domain": domain, "length": i % 2})
        asked = t.add(Message("user", " ".join(words[(7 * i + k * (i + 1)) % len(words)] for k in range(6))), None)
        t.episodes = [Episode(t.add(Message("assistant", words[i % len(words)]), asked), reward=reward)]
        rows.append(t)
    return rows


@pytest.mark.exact(77)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9))
def test_exactly_so_many_with_the_quotas_and_none_too_similar(a, b, seed):
    data = pool(*"ab" * 8)
    quotas, limit = {"a": a, "b": b}, 0.8
    chosen = curation.select(data, size=a + b, quotas=quotas, similarity=limit, seed=seed)
    assert len(chosen) == a + b
    counted = Counter(t.meta["domain"] for t in chosen)
    assert (counted["a"], counted["b"]) == (a, b)
    vectors = _tfidf(data)
    places = [data.index(t) for t in chosen]
    assert all(vectors[i] @ vectors[j] <= limit + 1e-9 for i, j in itertools.combinations(places, 2))
    assert [t.id for t in curation.select(data, size=a + b, quotas=quotas, similarity=limit, seed=seed)] == [
        t.id for t in chosen
    ]


@pytest.mark.exact(35, 77)
@pytest.mark.parametrize(("size", "expected"), [(6, {2: 3}), (8, {2: 1, 3: 2}), (10, {2: 1, 4: 2}), (14, {2: 1, 6: 2})])
def test_cells_are_equal_up_to_supply(size, expected):
    """Two, six and six episodes in three cells."""
    chosen = curation.select(pool(*"aabbbbbbcccccc"), size=size, similarity=1.0)
    assert Counter(Counter(t.meta["domain"] for t in chosen).values()) == expected


def test_a_cell_may_be_a_combination():
    chosen = curation.select(pool(*"aabb" * 3), size=4, by=["domain", "length"])
    assert sorted((t.meta["domain"], t.meta["length"]) for t in chosen) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_the_next_is_the_farthest():
    data = pool(*"aaa")
    for t, text in zip(data, ("ape bee cow", "ape bee dog", "owl pig ram"), strict=True):
        t.messages = [Message("user", text), Message("assistant", "")]
    for seed in range(5):
        chosen = {t.id for t in curation.select(data, size=2, seed=seed)}
        assert "a2" in chosen


def test_what_failed_is_not_chosen():
    data = [*pool(*"aa", reward=0.0), *pool(*"bbb")]
    assert {t.meta["domain"] for t in curation.select(data, size=2, by=[])} == {"b"}
    assert np.isclose(sum(t.episodes[0].reward for t in curation.select(data, size=2)), 2)


def test_too_few_is_an_error():
    with pytest.raises(RecipeError, match="size=4, and there are 3"):
        curation.select(pool(*"aaa"), size=4)
    with pytest.raises(RecipeError, match="add up to 3, not to size=4"):
        curation.select(pool(*"aaaa"), size=4, quotas={"a": 3})
    with pytest.raises(RecipeError, match=r"cell 'a' has 1 of the 2 episodes .* of 2 with reward >= 1"):
        curation.select([*pool("a"), *pool("a")], size=2)
