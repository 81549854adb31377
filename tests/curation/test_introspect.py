"""curation/introspect, curation/given and credit/regression: RISE's data and its weights."""

import numpy as np
import pytest

from etude import credit, curation
from etude.trajectory import Episode, Message, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_hindsight import said
from .test_steps import gradient, talk, weighted


def test_the_best_stands_alone_and_behind_the_others(group):
    found = curation.introspect([group("a", 0.0, 1.0, 0.5)], attempts=3, ask="Again.")
    assert list(map(said, found)) == [
        ["Question a", "Answer 1 to a"],
        ["Question a", "Answer 0 to a", "Again.", "Answer 1 to a"],
        ["Question a", "Answer 0 to a", "Again.", "Answer 2 to a", "Again.", "Answer 1 to a"],
    ]
    assert [t.meta["given"] for t in found] == [0, 1, 2]
    assert len({t.id for t in found}) == 3


@pytest.mark.exact(128)
def test_the_first_turn_is_the_single_turn_prompt(policy, group):  # noqa: F811
    data = group("a", 0.0, 1.0)
    first = curation.introspect([data])[0]
    for t in (data, first):
        for e in t.episodes:
            e.leaf = policy.renderer.fill(t, e.leaf)
    assert first.ids_P(first.episodes[0].leaf).tolist() == data.ids_P(data.episodes[1].leaf).tolist()


@pytest.mark.exact(128)
@pytest.mark.parametrize("rewards", [(0.0, 1.0, 0.5), (1.0, 1.0), (0.25, 0.0), (0.5,)])
def test_no_state_gets_an_attempt_worse_than_its_own(group, rewards):
    data = group("a", *rewards)
    of = {f"Answer {g} to a": r for g, r in enumerate(rewards)}
    for t in curation.introspect([data], attempts=4):
        attempts = [of[text] for text in said(t) if text in of]
        assert attempts[-1] == max(attempts)
        assert attempts[-1] == max(rewards) == t.episodes[0].reward


def test_what_was_given_is_not_trained(policy, group):  # noqa: F811
    samples = curation.introspect([group("a", 0.0, 1.0, 0.5)], attempts=3)
    for t in samples:
        policy.renderer.fill(t, t.episodes[0].leaf)
    for t in curation.given(samples):
        trained = [t.messages[n.message].content for n in t.nodes if n.sampled_T.any()]
        assert trained == ["Answer 1 to a"]
    nothing = talk("n", 1, policy.renderer.fill)
    nothing.meta["given"] = 1
    assert curation.given([nothing, talk("b", 1, policy.renderer.fill)])[0].id == "b"


@pytest.mark.exact(128)
def test_equal_rewards_make_the_weighted_loss_that_of_fine_tuning(policy):  # noqa: F811
    def data():
        rows = [talk("a", 2, policy.renderer.fill), talk("b", 3, policy.renderer.fill)]
        for t in rows:
            t.episodes[0].score = 0.7
        return rows

    plain, same = data(), data()
    credit.regression(same, tau=0.2)
    for a, b in zip(weighted(plain), same, strict=True):
        for one, other in zip(a.nodes, b.nodes, strict=True):
            assert (one.weight_T is None) == (other.weight_T is None)
            if one.weight_T is not None and other.weight_T is not None:
                np.testing.assert_array_equal(one.weight_T, other.weight_T)
    other = data()
    other[0].episodes[0].score = 0.0
    credit.regression(other, tau=0.2)
    assert np.nanmax(other[0].nodes[2].weight_T) < np.nanmin(other[1].nodes[2].weight_T)
    assert np.abs(gradient(policy, plain, "token")).max() > 1e-3


def test_the_weights_by_hand():
    """exp(0), exp(1) and exp(2) by their mean, and nothing for what has no score."""
    t = Trajectory("t", "t")
    ids = {"ids_T": np.array([1], np.int32), "sampled_T": np.array([True])}
    for score in (0.0, 0.5, 1.0, None):
        t.episodes.append(Episode(t.add(Message("assistant", "x"), None, **ids), score=score))
    credit.regression([t], tau=0.5)
    mean = (1 + np.e + np.e**2) / 3
    weights = [n.weight_T[0] for n in t.nodes if n.weight_T is not None]
    assert weights == pytest.approx([1 / mean, np.e / mean, np.e**2 / mean], rel=1e-6)
    assert t.nodes[3].weight_T is None
