"""environments/devices: turns that are judged by state and results, and splits that share no rule."""

import pytest

from etude.core.errors import PartError
from etude.environments.devices import KINDS, UNSEEN, devices
from etude.trajectory import Message, ToolCall

DONE = Message("assistant", "Done.")


async def play(world, task, messages):
    session = world.open()
    await session.reset(task, 0)
    for message in messages:
        step = await session.step(message)
        if step.done:
            return step.reward
    raise AssertionError("it is not over")


def of(domain, turns=2):
    return [t for t in devices().tasks("train") if t.domain == domain and t.difficulty == turns]


@pytest.mark.parametrize("split", ["train", "dev", "test", "domains", "start"])
async def test_the_expert_earns_1_and_silence_nothing(split):
    world = devices()
    for task in world.tasks(split):
        assert await play(world, task, world.solve(task, 0)) == 1
        assert await play(world, task, [DONE] * 3) == 0


async def test_a_level_that_was_guessed_spoils_the_turn_that_tells_it():
    for task in of("param")[:20]:
        ask, *rest = task.environment.solve(task, 0)
        first, act = rest[0].tool_calls[0], rest[-2].tool_calls[0]
        guess = ToolCall(act.name, {**act.arguments, "level": act.arguments["level"] % 9 + 1})
        early = [Message("assistant", tool_calls=(one,)) for one in (first, guess)]
        assert await play(task.environment, task, [*early, ask, *rest]) == 0


async def test_a_tool_that_comes_later_is_not_there_before():
    task = of("func")[0]
    later = task.data["later"]
    session = task.environment.open()
    await session.reset(task, 0)
    assert later not in [tool["name"] for tool in session.tools]
    (said,) = (await session.step(DONE)).observation.messages
    assert later in said.content
    assert later in [tool["name"] for tool in session.tools]


async def test_a_question_wants_its_result_though_it_changes_nothing():
    asked = [t for t in of("base") if t.data["turns"][1]["calls"][0][0] == "read"]
    for task in asked[:10]:
        said = task.environment.solve(task, 0)
        unread = [m for m in said if not m.tool_calls or m.tool_calls[0].name != "read"]
        assert await play(task.environment, task, said) == 1
        assert await play(task.environment, task, unread) == 0.5
        assert await play(devices(progress=False), task, unread) == 0
    assert len(asked) > 5


def test_kinds_never_seen_share_no_word_with_the_others():
    start = [task.data["kinds"] for task in devices().tasks("start")]
    seen, unseen, drawn = (
        {word for one in some for device, rules in one.items() for word in (device, *rules)}
        for some in ([KINDS], [UNSEEN], start)
    )
    assert not unseen & (seen | drawn)
    for device, (_, first) in KINDS.items():  # what is drawn anew teaches no rule
        wants = [kinds[device][1] for kinds in start if device in kinds]
        assert wants.count(first) < len(wants) / 3
    with pytest.raises(PartError, match="no split 'tests'; did you mean 'test'"):
        devices().tasks("tests")
