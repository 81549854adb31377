"""curation/hindsight: from the worst attempt to the best, in one context."""

import pytest

from etude import curation
from etude.trajectory import Message, StopReason

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_steps import gradient


def said(t) -> list[str]:
    return [m.content for m in t.dialogue(t.episodes[0].leaf)]


def returns(t, rewards) -> list[float]:
    """The reward of each attempt, told by its answer."""
    return [rewards[text] for text in said(t) if text in rewards]


@pytest.mark.exact(162)
def test_returns_do_not_fall_and_all_are_told_the_best(group):
    rewards = {f"Answer {g} to a": r for g, r in enumerate([0.75, 0.0, 1.0, 0.5, 0.25])}
    (data,) = [group("a", *rewards.values())]
    for seed in range(4):
        chains = curation.hindsight([data], attempts=3, seed=seed)
        assert [len(returns(t, rewards)) for t in chains] == [3, 2]
        for t in chains:
            found = returns(t, rewards)
            assert found == sorted(found)
            assert said(t)[0] == f"Question a\nTarget: {max(found):g}"
            assert t.episodes[0].reward == found[-1]
        assert sorted(r for t in chains for r in returns(t, rewards)) == sorted(rewards.values())


def test_a_chain_in_words(group):
    (chain,) = curation.hindsight([group("a", 1.0, 0.5)], ask="Again.")
    assert said(chain) == ["Question a\nTarget: 1", "Answer 1 to a", "Again.", "Answer 0 to a"]
    shuffled = {tuple(said(*curation.hindsight([group("a", 1.0, 0.5)], order="shuffled", seed=s))) for s in range(9)}
    assert len(shuffled) == 2


@pytest.mark.exact(162)
def test_a_chain_of_one_is_a_decision_transformer(policy, group):  # noqa: F811
    """The target, and the actions behind it: the same batch, the same loss."""
    data = group("a", 0.0, 1.0)
    chains = curation.hindsight([data], attempts=1)
    by_hand = [group("a", r, answers=(f"Answer {i} to a",)) for i, r in enumerate([0.0, 1.0])]
    for t in by_hand:
        t.messages[0] = Message("user", f"Question a\nTarget: {t.episodes[0].reward:g}")
    for t in (*chains, *by_hand):
        t.episodes[0].leaf = policy.renderer.fill(t, t.episodes[0].leaf)
    assert sorted(map(said, chains)) == sorted(map(said, by_hand))
    chains.sort(key=said)
    assert (gradient(policy, chains, "token") == gradient(policy, sorted(by_hand, key=said), "token")).all()
    plain = curation.hindsight([data], attempts=1, target=False)
    assert sorted(map(said, plain)) == [["Question a", "Answer 0 to a"], ["Question a", "Answer 1 to a"]]


@pytest.mark.exact(162)
def test_the_loss_is_on_the_actions_of_every_attempt_alone(policy, group):  # noqa: F811
    (chain,) = curation.hindsight([group("a", 0.0, 1.0)])
    policy.renderer.fill(chain, chain.episodes[0].leaf)
    trained = [chain.messages[n.message].role for n in chain.nodes if n.sampled_T.any()]
    assert trained == ["assistant", "assistant"]
    assert len(chain.nodes) == 4


def test_what_did_not_end_is_left_out(group):
    data = group("a", 0.0, 1.0, None, 0.5)
    data.episodes[0].stop = StopReason.TOKENS
    (chain,) = curation.hindsight([data], attempts=4)
    assert said(chain)[1:] == ["Answer 3 to a", "Done: no. Try again.", "Answer 1 to a"]
