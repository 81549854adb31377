"""scoring/novelty: calls that were not made before."""

import pytest

from etude.scoring import novelty
from etude.trajectory import Episode, Message, ToolCall, Trajectory


def call(button, id="c"):
    return Message("assistant", tool_calls=(ToolCall("press", {"button": button}, id),))


async def test_by_hand():
    trajectory, leaf, acts = Trajectory("t", "task"), None, []
    for message in [
        call("A"),
        Message("tool", "1", tool_call_id="c"),
        call("A"),
        Message("tool", "0", tool_call_id="c"),
        call("Z"),
        Message("tool", "error: no button", tool_call_id="c"),
        call("B"),
        Message("assistant", "Done."),
    ]:
        sampled = {"version": 0} if message.role == "assistant" else {}
        leaf = trajectory.add(message, leaf, **sampled)
        acts += [leaf] if sampled else []
    assert await novelty(bonus=0.5)(trajectory, Episode(leaf)) == pytest.approx(1.0)
    assert [trajectory.nodes[n].scores["novelty"] for n in acts] == [0.5, 0.0, 0.0, 0.5, 0.0]
