"""The script is followed along the path, whatever else the tree holds."""

import pytest

from etude.core.errors import PolicyError
from etude.policies.scripted import scripted
from etude.protocols import Sampling
from etude.trajectory import Message, ToolCall, Trajectory

FIRST = Message("assistant", tool_calls=(ToolCall("look", {"at": "shelf"}),))
LAST = Message("assistant", "three")


async def say(policy, trajectory, leaf):
    below, action = await policy.act(trajectory, leaf, sampling=Sampling(), seed=0)
    assert below == leaf
    return action


def dialogue():
    trajectory = Trajectory("t", "task")
    leaf = trajectory.add(Message("user", "an example"), None)
    leaf = trajectory.add(Message("assistant", "shown in the prompt, not sampled"), leaf)
    return trajectory, trajectory.add(Message("user", "how many?"), leaf)


async def test_messages_come_in_order_and_a_branch_goes_on_where_it_left():
    policy = scripted([FIRST, LAST])
    trajectory, asked = dialogue()
    action = await say(policy, trajectory, asked)
    assert action.message is FIRST
    assert action.ids_T is None
    assert action.logprob_T is None
    called = trajectory.add(action.message, asked, version=policy.version)
    told = trajectory.add(Message("tool", "3"), called)
    assert (await say(policy, trajectory, told)).message is LAST
    assert (await say(policy, trajectory, asked)).message is FIRST  # again from the fork: nothing was counted
    over = trajectory.add(LAST, told, version=policy.version)
    with pytest.raises(PolicyError, match="turn 3 is beyond the script's 2 messages"):
        await say(policy, trajectory, over)


async def test_a_function_sees_the_dialogue():
    policy = scripted(lambda messages: Message("assistant", f"{len(messages)}: {messages[-1].content}"))
    trajectory, asked = dialogue()
    assert (await say(policy, trajectory, asked)).message.content == "3: how many?"


async def test_each_task_has_a_script_of_its_own():
    policy = scripted({"other": [LAST], "task": [FIRST]})
    trajectory, asked = dialogue()
    assert (await say(policy, trajectory, asked)).message is FIRST


async def test_there_must_be_something_to_answer():
    with pytest.raises(PolicyError, match="no message to answer"):
        await scripted([LAST]).act(Trajectory("t", "task"), None, sampling=Sampling(), seed=0)
