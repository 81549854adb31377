"""curation/mask_errors: the mistake is context, the recovery is trained."""

import math

import numpy as np
import pytest

from etude import curation
from etude.core.parts import build
from etude.training.learner import Learner
from etude.trajectory import Episode, Message, ToolCall, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_steps import gradient, talk, weighted


def mended(fill, wrong: str = "mut", result: str = "error: no mut") -> Trajectory:
    t = Trajectory("m", "task")
    leaf = None
    for message in [
        Message("user", "the cat"),
        Message("assistant", "", (ToolCall("get", {"id": wrong}, "call_1"),)),
        Message("tool", result),
        Message("assistant", "", (ToolCall("get", {"id": "mat"}, "call_2"),)),
        Message("tool", "the mat"),
        Message("assistant", "the mat"),
    ]:
        leaf = t.add(message, leaf)
    t.episodes = [Episode(fill(t, leaf), reward=1.0)]
    return t


def trained(t: Trajectory) -> list[int]:
    nodes = [n for n in t.nodes if t.messages[n.message].role == "assistant"]
    return [k for k, node in enumerate(nodes) if node.sampled_T.any()]


@pytest.mark.exact(35)
def test_a_call_with_an_error_has_no_gradient_and_yet_changes_what_follows(policy):  # noqa: F811
    fill = policy.renderer.fill
    (kept,) = weighted(curation.mask_errors([mended(fill)]))
    assert trained(kept) == [1, 2]
    assert kept.nodes[1].weight_T is None
    alone = [t for t in curation.steps([mended(fill)]) if t.id != "m:1"]
    whole, masked = gradient(policy, [mended(fill)], "token"), gradient(policy, [kept], "token")
    np.testing.assert_allclose(masked, gradient(policy, alone, "token"), atol=1e-6)
    assert np.abs(whole - masked).max() > 1e-4
    (other,) = curation.mask_errors([mended(fill, wrong="sat")])
    assert np.abs(gradient(policy, [other], "token") - masked).max() > 1e-4


def test_what_is_no_error_is_trained(policy):  # noqa: F811
    (kept,) = curation.mask_errors([mended(policy.renderer.fill, result="an errorless mut")])
    assert trained(kept) == [0, 1, 2]


def test_an_answer_that_could_not_be_read_is_masked(policy):  # noqa: F811
    data = mended(policy.renderer.fill, result="ok")
    data.nodes[3].scores["malformed"] = 1.0
    assert trained(*curation.mask_errors([data])) == [0, 2]


def test_an_episode_of_nothing_but_errors_is_dropped(policy):  # noqa: F811
    data = talk("a", 1, policy.renderer.fill)
    data.nodes[2].scores["malformed"] = 1.0
    assert curation.mask_errors([data]) == []


@pytest.mark.exact(35)
def test_a_trie_trains_the_sum_of_its_trajectories_at_the_cost_of_its_size(load_policy):  # noqa: F811
    """Two trajectories with one beginning: the loss is that of each alone, and what they share is computed once."""

    def loss(groups):
        policy = load_policy()
        policy.reach = math.inf  # however small the model, sharing is worth it
        learner = Learner(policy, build("objectives/likelihood", normalise="constant"), lr=0.0)
        return sum(learner.step(g)["loss"] * len(g) for g in groups), learner.tokens_computed

    policy = load_policy()  # noqa: F811
    data = weighted([mended(policy.renderer.fill), mended(policy.renderer.fill, result="error: none")])
    apart, packed = loss([[t] for t in data]), loss([data])
    assert packed[0] == pytest.approx(apart[0], rel=1e-5)
    a, b = (t.ids_P(t.episodes[0].leaf).tolist() for t in data)
    shared = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    assert packed[1] == len(a) + len(b) - shared
    assert apart[1] == len(a) + len(b)
