"""curation/salvage: the steps of a failure from which the policy succeeds."""

import numpy as np
import pytest

from etude import curation
from etude.trajectory import Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_steps import gradient, talk, weighted


def failure(fill) -> Trajectory:
    t = talk("failure", 4, fill)
    t.episodes[0].reward = 0.0
    return t


def branched(fill, start: int, reward: float, g: int = 0) -> Trajectory:
    t = talk(f"b{start}.{g}", 4, fill)
    t.episodes[0].reward = reward
    t.meta = {"origin": "failure", "start": start}
    return t


def trained(t: Trajectory) -> list[int]:
    nodes = [n for n in t.nodes if t.messages[n.message].role == "assistant"]
    return [k for k, node in enumerate(nodes) if node.sampled_T.any()]


def test_it_keeps_the_segment_that_leads_from_failing_to_succeeding(policy):  # noqa: F811
    fill = policy.renderer.fill
    starts = [branched(fill, k, reward) for k, reward in enumerate([0.0, 0.0, 1.0, 1.0])]
    found = curation.salvage([talk("good", 2, fill), failure(fill), *starts])
    assert [t.id for t in found] == ["good", "b2.0"]
    assert trained(found[1]) == [1, 2, 3]  # the expert's second answer, and what the policy said
    assert curation.salvage(found) == found  # what was salvaged is data like any other


def test_a_state_from_which_nobody_failed_before_is_the_policy_s_own_success(policy):  # noqa: F811
    fill = policy.renderer.fill
    starts = [branched(fill, k, reward) for k, reward in enumerate([1.0, 0.0, 1.0])]
    found = curation.salvage([failure(fill), *starts])
    assert [(t.id, trained(t)) for t in found] == [("b0.0", [0, 1, 2, 3]), ("b2.0", [1, 2, 3])]


def test_states_may_lie_apart_and_one_of_several_episodes_is_enough(policy):  # noqa: F811
    fill = policy.renderer.fill
    tries = [branched(fill, 0, 0.0), branched(fill, 2, 0.0), branched(fill, 2, 1.0, g=1), branched(fill, 2, 1.0, g=2)]
    found = curation.salvage([failure(fill), *tries])
    assert [(t.id, trained(t)) for t in found] == [("b2.1", [0, 1, 2, 3])]


@pytest.mark.exact(14)
def test_without_branches_it_is_rejection_sampling(group):
    data = [group("a", 0.0, 1.0, None), group("b", 0.0), group("c", 1.0, 1.0)]
    assert curation.salvage(data) == curation.success(data)


@pytest.mark.exact(14)
def test_masked_answers_have_no_gradient_and_no_failed_suffix_carries_loss(policy):  # noqa: F811
    fill = policy.renderer.fill
    data = [failure(fill), branched(fill, 0, 0.0), branched(fill, 1, 0.0), branched(fill, 2, 1.0)]
    found = weighted(curation.salvage(data))
    assert all(e.reward == 1.0 for t in found for e in t.episodes)
    (sample,) = found
    silent = [n for n in sample.nodes if n.weight_T is None or np.isnan(n.weight_T).all()]
    assert len(silent) == 1 + 4 + 1  # the system, four users and the masked answer
    # the gradient is that of the other three answers, each behind all that came before it
    steps = [t for t in curation.steps([branched(fill, 2, 1.0)]) if not t.id.endswith(":1")]
    np.testing.assert_allclose(gradient(policy, found, "token"), gradient(policy, steps, "token"), atol=1e-6)
    assert np.abs(gradient(policy, found, "token")).max() > 1e-3


def test_a_failed_episode_without_success_gives_nothing(policy):  # noqa: F811
    fill = policy.renderer.fill
    assert curation.salvage([failure(fill), branched(fill, 0, 0.0), branched(fill, 1, 0.0)]) == []
