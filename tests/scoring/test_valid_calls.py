"""scoring/valid_calls: which calls fit, by hand."""

import pytest

from etude.scoring.valid_calls import valid_calls
from etude.trajectory import Episode, Message, ToolCall, Trajectory

TOOL = {
    "name": "open",
    "description": "open it",
    "parameters": {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]},
}
GOOD = ToolCall("open", {"level": 3})
BAD = [ToolCall("opn", {"level": 3}), ToolCall("open", {}), ToolCall("open", {"level": "x"}),
       ToolCall("open", {"level": 3, "by": "me"})]  # fmt: skip


async def share(*calls, unread=0):
    trajectory = Trajectory("t", "t", tools=[TOOL])
    leaf = trajectory.add(Message("user", "?"), None)
    for call in calls:
        leaf = trajectory.add(Message("assistant", tool_calls=(call,)), leaf, version=0)
    for _ in range(unread):
        leaf = trajectory.add(Message("assistant", "<tool_call>{"), leaf, version=0, scores={"malformed": 1.0})
    return await valid_calls()(trajectory, Episode(leaf))


@pytest.mark.parametrize("bad", BAD)
async def test_by_hand(bad):
    assert await share(GOOD, GOOD) == 1
    assert await share(GOOD, bad) == 0.5
    assert await share(GOOD, unread=3) == 0.25
    assert await share() == 0
