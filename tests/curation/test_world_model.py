"""curation/world_model and curation/reflect: what other actions would have led to."""

import asyncio

import numpy as np
import pytest

from etude import curation
from etude.agents.loops import native
from etude.environments import desk
from etude.policies import scripted
from etude.protocols import Action
from etude.rollout.branch import branch
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_mask_errors import mended
from .test_steps import gradient, talk

WORLD = desk(difficulty=2)
TASKS = {task.id: task for task in WORLD.tasks("train")[:4]}


class Wanderer:
    """Calls a tool of the world with a value that depends on the seed alone; sometimes it says something instead."""

    name, version = "wanderer", 0

    async def act(self, trajectory, leaf, *, sampling, seed):
        if seed % 4 == 0:
            return leaf, Action(Message("assistant", "done"))
        tool = trajectory.tools[seed % len(trajectory.tools)]
        arguments = dict.fromkeys(tool["parameters"]["required"], f"X-{seed % 3}")
        return leaf, Action(Message("assistant", "", (ToolCall(tool["name"], arguments, "call_1"),)))


@pytest.fixture(scope="module")
def experts():
    said = scripted({t.id: WORLD.solve(t, 0) for t in TASKS.values()})
    return asyncio.run(collect(said, list(TASKS.values()), agent=native(), max_turns=99))


def explored(experts, group: int):
    return asyncio.run(branch(Wanderer(), experts, TASKS, agent=native(), turns=1, group=group)) if group else []


@pytest.mark.exact(192)
@pytest.mark.parametrize("group", [1, 3])
def test_there_are_as_many_rollouts_as_states_times_actions_minus_duplicates(experts, group):
    tried = explored(experts, group)
    states = sum(t.episodes[0].turns for t in experts)
    assert sum(len(t.episodes) for t in tried) == group * states
    actions = set()
    for t in tried:
        for e in t.episodes:
            last = next(m for m in reversed(t.dialogue(e.leaf)) if m.role == "assistant")
            if last.tool_calls:
                call = last.tool_calls[0]
                actions.add((t.meta["origin"], t.meta["start"], call.name, str(sorted(call.arguments.items()))))
    found = curation.world_model([*experts, *tried])
    assert [t.id for t in found[: len(experts)]] == [t.id for t in experts]
    assert len(found) - len(experts) == len(actions)


@pytest.mark.exact(192)
def test_no_reward_is_in_what_is_trained(experts):
    tried = explored(experts, 2)
    for sample in [*curation.world_model([*experts, *tried]), *curation.reflect([*experts, *tried])][len(experts) :]:
        if sample.id in {t.id for t in experts}:
            continue
        (episode,) = sample.episodes
        assert (episode.reward, episode.score, episode.scores) == (None, None, {})
        assert all(node.reward is None for node in sample.nodes)
        assert not any("reward" in m.content.lower() for m in sample.messages)


@pytest.mark.exact(192)
def test_without_other_actions_it_is_imitation_bit_for_bit(experts):
    assert curation.world_model(experts) == experts
    assert curation.reflect(experts) == experts


def test_the_result_of_the_other_action_is_trained_and_nothing_else(policy):  # noqa: F811
    fill = policy.renderer.fill
    expert, other = mended(fill, wrong="mat", result="fine"), mended(fill)
    expert.id, other.meta = "expert", {"origin": "expert", "start": 0}
    (_, sample) = curation.world_model([expert, other])
    trained = [sample.messages[n.message].content for n in sample.nodes if n.sampled_T.any()]
    assert trained == ["error: no mut"]
    assert gradient(policy, [sample], "token").any()
    repeated = mended(fill, wrong="mat", result="fine")
    repeated.meta = {"origin": "expert", "start": 0}
    assert curation.world_model([expert, repeated]) == [expert]
    assert len(curation.reflect([expert, other])) == 2
    assert curation.reflect([expert, repeated]) == [expert]


def test_observations_of_the_demonstrations_are_trained_until_only_answers_are(policy):  # noqa: F811
    fill = policy.renderer.fill
    (whole,) = curation.world_model([mended(fill)], own=True)
    trained = [whole.messages[n.message].role for n in whole.nodes if n.sampled_T.any()]
    assert trained == ["assistant", "tool", "assistant", "tool", "assistant"]
    masked, unmasked = gradient(policy, [mended(fill)], "token"), gradient(policy, [whole], "token")
    assert np.abs(masked - unmasked).max() > 1e-4
    assert (gradient(policy, curation.given([whole]), "token") == masked).all()


def test_a_rationale_tells_both_outcomes(experts):
    tried = explored(experts, 3)
    found = curation.reflect([*experts, *tried], characters=20)[len(experts) :]
    assert found
    for sample in found:
        *before, last = sample.dialogue(sample.episodes[0].leaf)
        origin = next(t for t in experts if t.id == sample.id.rpartition("?")[0])
        whole = origin.dialogue(origin.episodes[0].leaf)
        assert before == whole[: len(before)]
        assert last.tool_calls == whole[len(before)].tool_calls
        assert last.content.count(" gives ") == 2
        assert whole[len(before) + 1].content[:20] in last.content
        assert sample.meta["given"] == sum(m.role == "assistant" for m in before)


def test_a_dialogue_that_was_no_branch_stays(policy):  # noqa: F811
    data = [talk("a", 2, policy.renderer.fill)]
    assert curation.world_model(data) == data
