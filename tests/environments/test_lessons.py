"""environments/lessons: what a lesson changes, which is what the agent reads, and what it must not."""

import random

import pytest

from etude.core import recipe as recipes
from etude.core.errors import PartError
from etude.environments import desk, devices, lessons
from etude.environments.devices import HIGHEST
from etude.trajectory import Message, ToolCall


def world():
    return recipes.build("environments", {"lessons": {"world": {"devices": {}}}})


def calling(name, **arguments):
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))


def by_chance(task, seed):
    """A script that calls anything, in and out of range, and now and then ends a turn."""
    rng = random.Random(f"{task.id.removesuffix('+')} {seed}")
    kinds, said = task.data["kinds"], []
    for _ in range(12):
        name = rng.choice([*task.data["firsts"], *(action for action, _ in kinds.values()), "read"])
        arguments = {"device": rng.choice([*kinds, "nobody"])}
        if name in [action for action, _ in kinds.values()]:
            arguments["level"] = rng.randint(0, HIGHEST + 1)
        said.append(calling(name, **arguments) if rng.random() < 0.85 else Message("assistant", "Done."))
    return said


async def played(one, task, messages):
    """What was seen, the states in between, and the reward."""
    session = one.open()
    seen, states = [(await session.reset(task, 0)).messages], []
    for message in messages:
        step = await session.step(message)
        seen.append(step.observation.messages)
        states.append((repr(session.state), repr(session.right), session.turn, session.current_reward()))
        if step.done:
            break
    return seen, states


@pytest.mark.exact(39)
@pytest.mark.parametrize("split", ["train", "domains", "start"])
async def test_a_lesson_changes_what_is_read_and_neither_the_world_nor_the_reward(split):
    one, taught = world(), 0
    for plain, with_lessons in zip(one.tasks(split)[:60], one.tasks(split + "+")[:60], strict=True):
        for script in (by_chance(plain, 0), by_chance(plain, 1), one.solve(plain, 0)):
            seen, states = await played(one, plain, script)
            seen_too, states_too = await played(one, with_lessons, script)
            assert states == states_too
            for a, b in zip(seen, seen_too, strict=True):
                for bare, told in zip(a, b, strict=True):
                    assert told.content == bare.content or told.content.startswith(f"{bare.content}; ")
                    assert (told.content != bare.content) == (bare.content == "error: not allowed")
                    taught += told.content != bare.content
    assert taught > 60


@pytest.mark.exact(39)
async def test_the_last_stage_sees_what_the_world_alone_shows():
    one, alone = world(), devices()
    for split in ("train", "test", "domains"):
        for ours, theirs in zip(one.tasks(split)[:40], alone.tasks(split)[:40], strict=True):
            assert ours.id == theirs.id
            for script in (by_chance(ours, 0), alone.solve(theirs, 0)):
                assert await played(one, ours, script) == await played(alone, theirs, script)


@pytest.mark.exact(39)
async def test_a_solution_earns_1_and_a_part_of_it_its_share():
    one, shares = world(), set()
    for task in [*one.tasks("train+")[:80], *one.tasks("start")[:40]]:
        said = one.solve(task, 0)
        ends = [n for n, message in enumerate(said) if not message.tool_calls]
        right, turns = 0, sum(bool(turn["calls"]) for turn in task.data["turns"])
        for n, turn in enumerate(task.data["turns"]):
            right += bool(turn["calls"])
            _, states = await played(one, task, said[: ends[n] + 1] + [Message("assistant", "Done.")] * 4)
            assert states[-1][-1] == right / turns
            shares.add(right / turns)
    assert shares == {0.0, 0.5, 1.0}  # 0 where the first turn wants nothing


async def test_a_lesson_names_the_tool_and_the_rule_and_not_the_level():
    one = world()
    task = next(t for t in one.tasks("train+") if t.domain == "base")
    session = one.open()
    await session.reset(task, 0)
    device, other = task.data["kinds"]
    action, first = task.data["kinds"][device]
    wrong = next(f for f in task.data["firsts"] if f != first)

    async def told(name, **arguments):
        return (await session.step(calling(name, **arguments))).observation.messages[0].content

    assert await told(action, device=device, level=3) == f"error: not allowed; call {first} first"
    assert await told(wrong, device=device) == f"error: not allowed; {wrong} is not for the {device}"
    assert await told(first, device=device) == "ok"
    assert await told(first, device=device) == f"error: not allowed; the {device} is ready"
    assert (
        await told(action, device="nobody", level=3)
        == f"error: not allowed; there is no nobody; there are {device} and {other}"
    )


async def test_a_fork_goes_on_being_taught():
    one = world()
    task = one.tasks("train+")[0]
    session, fork = one.open(), one.open()
    await session.reset(task, 0)
    await fork.restore(await session.snapshot())
    (answer,) = (await fork.step(calling("read", device="nobody"))).observation.messages
    assert "there is no nobody" in answer.content


def test_only_a_world_that_knows_why_can_teach():
    with pytest.raises(PartError, match=r"'desk' has no lessons; give its session lesson\(name, arguments, result\)"):
        lessons(desk())
    ids = [[task.id for task in world().tasks(split)] for split in ("train", "train+")]
    assert not set(ids[0]) & set(ids[1])
