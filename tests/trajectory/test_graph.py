"""The tree of messages: paths, weights of shared prefixes, and what `check` refuses."""

import numpy as np
import pytest

from etude.core.errors import CreditError, TrajectoryError
from etude.trajectory import Episode, Message, Trajectory, episodes

NAN = np.nan


def sampled(*mask: bool) -> dict:
    return {"ids_T": np.arange(len(mask), dtype=np.int32), "sampled_T": np.array(mask, bool)}


def tree() -> Trajectory:
    """A question, one shared turn below it, and two answers below that."""
    t = Trajectory("t", "task")
    root = t.add(Message("user", "q"), None, ids_T=np.array([7, 8], np.int32))
    shared = t.add(Message("assistant", "think"), root, **sampled(False, True, True))
    left = t.add(Message("assistant", "a"), shared, **sampled(True))
    right = t.add(Message("assistant", "b"), shared, **sampled(False, True))
    t.episodes = [Episode(left), Episode(right)]
    return t


def test_a_shared_token_gets_the_sum_of_its_episodes_weights():
    t = tree()
    t.weigh([0.5, -2.0])
    assert t.nodes[0].weight_T is None
    np.testing.assert_array_equal(t.nodes[1].weight_T, np.array([NAN, -1.5, -1.5], np.float32))
    np.testing.assert_array_equal(t.nodes[2].weight_T, np.array([0.5], np.float32))
    np.testing.assert_array_equal(t.nodes[3].weight_T, np.array([NAN, -2.0], np.float32))
    assert t.nodes[1].weight_T.dtype == np.float32


def test_nan_leaves_an_episode_unscored_which_is_not_zero():
    t = tree()
    t.weigh([1.0, NAN])
    np.testing.assert_array_equal(t.nodes[1].weight_T, np.array([NAN, 1.0, 1.0], np.float32))
    assert t.nodes[3].weight_T is None
    t.weigh([NAN, 0.0])
    np.testing.assert_array_equal(t.nodes[1].weight_T, np.array([NAN, 0.0, 0.0], np.float32))
    assert t.nodes[2].weight_T is None


def test_weighing_again_replaces():
    t = tree()
    t.weigh([1.0, 1.0])
    t.weigh([3.0, 4.0])
    np.testing.assert_array_equal(t.nodes[1].weight_T, np.array([NAN, 7.0, 7.0], np.float32))


def test_an_episode_that_was_rewritten_trains_each_of_its_nodes_once():
    """The template dropped the first thought, so that the dialogue was rendered again from the root."""
    t = Trajectory("t", "task")
    root = t.add(Message("user", "q"), None, ids_T=np.array([7], np.int32))
    first = t.add(Message("assistant", "thought and call"), root, **sampled(True, True))
    again = t.reuse(1, root, **sampled(False))
    last = t.add(Message("assistant", "a"), again, **sampled(True))
    t.episodes = [Episode(last, rewritten=[first])]
    t.weigh([2.0])
    assert t.nodes_of(t.episodes[0]) == [0, 1, 2, 3]
    np.testing.assert_array_equal(t.nodes[first].weight_T, np.array([2.0, 2.0], np.float32))
    assert t.nodes[again].weight_T is None
    assert [m.content for m in t.dialogue(last)] == ["q", "thought and call", "a"]


def test_token_weights_add_up_and_must_fit():
    t = tree()
    t.weigh_node(1, np.array([9.0, 1.0, 2.0]))
    t.weigh_node(1, 0.5)
    np.testing.assert_array_equal(t.nodes[1].weight_T, np.array([NAN, 1.5, 2.5], np.float32))
    with pytest.raises(CreditError, match="trajectory t node 1: 2 weights for 3 tokens"):
        t.weigh_node(1, np.array([1.0, 2.0]))


def test_one_weight_an_episode():
    with pytest.raises(CreditError, match="3 weights for 2 episodes"):
        tree().weigh([1.0, 2.0, 3.0])


def test_paths_dialogues_and_ids():
    t = tree()
    assert t.path(3) == [0, 1, 3]
    assert [m.content for m in t.dialogue(2)] == ["q", "think", "a"]
    np.testing.assert_array_equal(t.ids_P(3), [7, 8, 0, 1, 2, 0, 1])
    assert t.ids_P(3).dtype == np.int32
    assert Trajectory("e", "e", nodes=[]).score_G.shape == (0,)
    assert [e.leaf for _, e in episodes([t, t])] == [2, 3, 2, 3]


def test_unscored_episodes_are_nan():
    t = tree()
    t.episodes[0].score = 0.0
    np.testing.assert_array_equal(t.score_G, np.array([0.0, NAN]))


def test_add_refuses_a_parent_that_is_not_there():
    with pytest.raises(TrajectoryError, match="parent 4 is not one of its 4 nodes"):
        tree().add(Message("user"), 4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: setattr(t.nodes[1], "parent", 1), "node 1: parent 1 does not precede it"),
        (lambda t: setattr(t.nodes[1], "parent", 3), "node 1: parent 3 does not precede it"),
        (lambda t: setattr(t.nodes[2], "message", 4), "node 2: no message 4"),
        (lambda t: setattr(t.nodes[1], "sampled_T", np.ones(2, bool)), "node 1: sampled_T has 2 of 3 tokens"),
        (lambda t: setattr(t.nodes[1], "logprob_T", np.ones(4, np.float32)), "node 1: logprob_T has 4 of 3 tokens"),
        (lambda t: setattr(t.nodes[1], "weight_T", np.ones(0, np.float32)), "node 1: weight_T has 0 of 3 tokens"),
        (lambda t: setattr(t.nodes[2], "ids_T", None), "node 2: sampled_T has 1 of 0 tokens"),
        (lambda t: setattr(t.episodes[1], "leaf", 9), "an episode ends at node 9"),
    ],
)
def test_check_names_what_does_not_fit(damage, message):
    t = tree()
    t.check()
    damage(t)
    with pytest.raises(TrajectoryError, match=message):
        t.check()
