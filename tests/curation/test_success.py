"""curation/success: only what went well, as a smaller tree."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core import parts
from etude.core.errors import CreditError
from etude.trajectory import Episode, Message, Trajectory

success = parts.load("curation/success")


def test_keeps_the_tree_of_what_is_kept(group):
    before = group("a", 0.0, 1.0, None, 0.7)
    (after,) = success([before], at_least=0.7)
    after.check()
    assert [e.reward for e in after.episodes] == [1.0, 0.7]
    assert [e.seed for e in after.episodes] == [1, 3]
    assert [m.content for m in after.messages] == ["Question a", "Answer 1 to a", "Answer 3 to a"]
    for episode, old in zip(after.episodes, (before.episodes[1], before.episodes[3]), strict=True):
        assert after.dialogue(episode.leaf) == before.dialogue(old.leaf)
    assert len(after.nodes) == 3
    assert len(before.episodes) == 4  # the original is left alone


def test_shared_message_of_a_branch_is_kept_once():
    """A rewritten history repeats a message in another node; both nodes keep pointing at it."""
    t = Trajectory("a", "a")
    user = t.add(Message("user", "hi"), None)
    again = t.reuse(0, None)
    lost = t.add(Message("assistant", "no"), user)
    good = t.add(Message("assistant", "one"), user)
    other = t.add(Message("assistant", "two"), again)
    t.episodes = [Episode(lost, reward=0.0), Episode(good, reward=1.0), Episode(other, reward=1.0)]
    (after,) = success([t])
    assert [m.content for m in after.messages] == ["hi", "one", "two"]
    assert [after.dialogue(e.leaf)[0].content for e in after.episodes] == ["hi", "hi"]


def test_earlier_renderings_of_a_kept_episode_are_kept(group):
    before = group("a", 0.0, 1.0)
    first = before.episodes[1].leaf
    before.episodes[1].rewritten = [first]
    before.episodes[1].leaf = before.add(Message("assistant", "later"), before.reuse(0, None))
    (after,) = success([before])
    (episode,) = after.episodes
    assert [m.content for m in after.dialogue(episode.rewritten[0])] == ["Question a", "Answer 1 to a"]
    assert [m.content for m in after.dialogue(episode.leaf)] == ["Question a", "later"]
    assert len(after.nodes) == 4


def test_failed_and_unrewarded_are_dropped_and_counted(group, caplog):
    unrewarded = group("b", 1.0)
    unrewarded.episodes[0].reward = None
    with caplog.at_level(logging.INFO, "etude.curation"):
        kept = success([group("a", None, 0.0, 1.0), unrewarded, group("c", 0.5)])
    assert [t.id for t in kept] == ["a"]
    assert "kept 1 of 5 episodes (2 below 1, 1 failed, 1 without a reward)" in caplog.text


@pytest.mark.exact(115)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_filter_keeps_exactly_what_reaches_the_threshold(rewards, at_least):
    t = Trajectory("a", "a")
    root = t.add(Message("user", "q"), None)
    t.episodes = [Episode(t.add(Message("assistant", str(r)), root), reward=r) for r in rewards]
    kept = [e.reward for after in success([t], at_least=at_least) for e in after.episodes]
    assert kept == [r for r in rewards if r >= at_least]


def test_weight_of_a_dropped_episode_cannot_be_taken_back():
    t = Trajectory("a", "a")
    ids = {"ids_T": np.array([1, 2], np.int32), "sampled_T": np.array([False, True])}
    shared = t.add(Message("assistant", "both"), None, **ids)
    t.episodes = [Episode(t.add(Message("assistant", str(r)), shared, **ids), reward=r) for r in (0.0, 1.0)]
    assert len(success([t])) == 1
    t.weigh([-1.0, 1.0])
    with pytest.raises(CreditError, match=r"node 0 carries the weight.*curate first"):
        success([t])


def test_a_scorers_word_may_decide_in_the_place_of_the_reward(group):
    before = group("a", 1.0, 0.0, 1.0, None)
    for episode, said in zip(before.episodes, (0.2, 0.6, None, 0.9), strict=True):
        if said is not None:
            episode.scores["verdict"] = said
    (after,) = success([before], at_least=0.5, score="verdict")
    assert [e.scores["verdict"] for e in after.episodes] == [0.6]  # the third has no such score, the fourth failed
