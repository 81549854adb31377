"""The loop of several attempts, and the line that an agent adds to the first request."""

import pytest

from etude.agents.loops import native, retry
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

from ..engine_fixtures import GET, Talk


async def play(agent, *said, **settings):
    world = Talk(turns=2, score=lambda text: float(text == "mat"), tools=(GET,))
    (t,) = await collect(scripted([Message("assistant", s) if isinstance(s, str) else s for s in said]),
                         world.tasks("train", 1), agent=agent, **settings)  # fmt: skip
    return t.episodes[0], t.dialogue(t.episodes[0].leaf)


CALL = Message("assistant", "", (ToolCall("get", {"id": "x"}, "1"),))


async def test_the_last_attempt_alone_reaches_the_world():
    episode, dialogue = await play(retry(attempts=3, ask="Again."), "cat", CALL, "mat")
    assert episode.failure is not None  # a third attempt was asked for, and the script had no more
    assert [m.content for m in dialogue if m.role == "user"] == ["the cat 0", "Again.", "Again."]
    episode, dialogue = await play(retry(), "cat", CALL, "mat")
    assert (episode.failure, episode.reward, episode.turns) == (None, 1.0, 3)
    assert [m.role for m in dialogue] == ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]


async def test_where_the_turns_end_the_answer_before_is_the_last():
    episode, dialogue = await play(retry(attempts=9), "cat", "mat", max_turns=2)
    assert (episode.turns, dialogue[-2:]) == (2, [Message("assistant", "mat"), Message("user", "and 1?")])


@pytest.mark.parametrize("agent", [native, retry])
async def test_a_note_ends_the_first_request(agent):
    settings = {"attempts": 1} if agent is retry else {}
    _, dialogue = await play(agent(note="Target: 1", **settings), CALL, "mat")
    assert dialogue[1] == Message("user", "the cat 0\nTarget: 1")
    _, dialogue = await play(agent(**settings), CALL, "mat")
    assert dialogue[1] == Message("user", "the cat 0")


async def test_one_attempt_is_the_native_loop():
    assert (await play(retry(attempts=1), CALL, "mat"))[1] == (await play(native(), CALL, "mat"))[1]
