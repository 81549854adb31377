"""The text loop against a scripted policy."""

import pytest

from etude.agents.loops import react
from etude.agents.loops.react import read
from etude.policies import scripted
from etude.protocols import Observation, Sampling
from etude.rollout.collect import collect
from etude.trajectory import Message, StopReason, ToolCall

from ..engine_fixtures import GET, Talk, TalkSession

TWO = {"name": "put", "parameters": {"type": "object", "properties": {"id": {}, "place": {}}}}
LOOK = 'Thought: I look it up.\nAction: get[{"id": "x"}]'
FINISH = "Thought: I know.\nAction: finish[the mat]"


async def play(said, world=None, **settings):
    world = world or Talk(turns=2, score=lambda text: float(text == "the mat"), tools=(GET, TWO))
    policy = said if hasattr(said, "act") else scripted([Message("assistant", text) for text in said])
    (trajectory,) = await collect(policy, world.tasks("train", 1), agent=react(), **settings)
    (episode,) = trajectory.episodes
    assert episode.failure is None
    return trajectory, episode, trajectory.dialogue(episode.leaf)


async def test_think_act_observe_and_finish():
    trajectory, episode, dialogue = await play([LOOK, FINISH])
    assert [m.role for m in dialogue] == ["system", "user", "assistant", "user", "assistant"]
    assert dialogue[3].content == "Observation: {'id': 'x'}"
    assert dialogue[4].content == FINISH
    assert (episode.stop, episode.reward, episode.turns) == (StopReason.ANSWERED, 1.0, 2)
    assert trajectory.tools == [], "tools are told in words, not through the template"
    assert all(not m.tool_calls for m in dialogue), "the record is what was said"


async def test_the_tools_are_listed_below_the_world_s_own_instructions():
    _, _, dialogue = await play([FINISH, FINISH])
    text = dialogue[0].content
    assert text.startswith("be a cat\nSolve the task in steps.")
    assert text.endswith("Tools:\n- get(id): Look a thing up.\n- put(id, place): ")
    assert "Action: finish[your answer]" in text


async def test_without_a_system_message_one_is_put_first():
    class Bare(TalkSession):
        async def reset(self, task, seed):
            return Observation((await super().reset(task, seed)).messages[1:])

    world = Talk(tools=(GET,))
    world.open = lambda: Bare(world)
    _, _, dialogue = await play([FINISH], world)
    assert [m.role for m in dialogue] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("I do not know.", "no action; write  Action: tool[{...}]  or  Action: finish[answer]"),
        ("Action: put[x]", 'the arguments of put must be a JSON object: put[{"argument": ...}]'),
        ('Action: nothing["x"]', "the arguments of nothing must be a JSON object"),
    ],
)
async def test_what_cannot_be_read_is_answered_and_the_episode_goes_on(said, error):
    _, episode, dialogue = await play([said, LOOK, FINISH])
    assert dialogue[3].content.startswith(f"Observation: error: {error}")
    assert (episode.reward, episode.turns) == (1.0, 3)


async def test_several_results_are_several_observations():
    class Talkative(TalkSession):
        async def step(self, action):
            step = await super().step(action)
            return step if step.done else type(step)(Observation((Message("tool", "one"), Message("tool", "two"))))

    world = Talk(turns=2, tools=(GET,))
    world.open = lambda: Talkative(world)
    _, _, dialogue = await play([LOOK, FINISH], world)
    assert [m.content for m in dialogue[3:5]] == ["Observation: one", "Observation: two"]


async def test_the_sampling_is_the_run_s_own_but_for_its_end():
    class Asking:
        name, version, seen = "asking", 0, None

        async def act(self, trajectory, leaf, *, sampling, seed):
            self.seen = sampling
            return await scripted([Message("assistant", FINISH)]).act(trajectory, leaf, sampling=sampling, seed=seed)

    policy, greedy = Asking(), Sampling(max_tokens=33, temperature=0)
    await play(policy, Talk(), sampling=greedy)
    assert policy.seen == Sampling(max_tokens=33, temperature=0, stop=("Observation:",))


@pytest.mark.parametrize(
    ("text", "call"),
    [
        (LOOK, ToolCall("get", {"id": "x"}, "call_1")),
        ("Action: get[x]", ToolCall("get", {"id": "x"}, "call_1")),
        ("Action: get[7]", ToolCall("get", {"id": 7}, "call_1")),
        ('Action: put[{"id": [1, 2], "place": "a]b"}]', ToolCall("put", {"id": [1, 2], "place": "a]b"}, "call_1")),
        ('Action: put[{\n  "id": 1\n}]', ToolCall("put", {"id": 1}, "call_1")),
        ("Action: put[]", ToolCall("put", {}, "call_1")),
        (f"{LOOK}\nAction: put[]", ToolCall("put", {}, "call_1")),
    ],
)
def test_reading_actions(text, call):
    message, problem = read(text, [GET, TWO])
    assert (message.tool_calls, problem) == ((call,), "")


def test_the_thought_is_kept_and_the_last_action_counts():
    message, _ = read(LOOK, [GET])
    assert message.content == "I look it up."
    assert read(f"{LOOK}\n{FINISH}", [GET])[0] == Message("assistant", "the mat")
