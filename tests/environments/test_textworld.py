"""environments/textworld: games made and compiled by the suite, played on its Z-machine in workers."""

import importlib.util

import pytest

from etude.core.errors import MissingExtra, PartError
from etude.environments.base import acts
from etude.environments.textworld import INSTALL, textworld
from etude.trajectory import Message

HERE = importlib.util.find_spec("textworld") is not None and importlib.util.find_spec("jericho") is not None
needs_suite = pytest.mark.skipif(not HERE, reason=INSTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(tmp_path_factory.mktemp("games")))
        world = textworld()
        yield world
        world.crew.close()
        world.solvers.close()


async def play(world, task, messages):
    session = world.open()
    await session.reset(task, 0)
    steps = []
    for message in messages:
        steps.append(await session.step(message))
        if steps[-1].done:
            break
    await session.close()
    return steps


@needs_suite
async def test_the_makers_solutions_earn_exactly_1(world):
    for task in world.tasks("test")[:12]:  # each challenge at each level
        steps = await play(world, task, world.solve(task, 0))
        assert sum(step.reward for step in steps) == 1.0, task.id
        assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True], task.id
        if task.domain == "cooking":
            assert sum(step.reward > 0 for step in steps) > 2
    assert [s.reward for s in await play(world, task, [Message("assistant", "No.")])] == [0.0]


@needs_suite
async def test_a_game_is_made_once_and_is_the_same_when_made_again(world, tmp_path, monkeypatch):
    made = {task.id: (world.solve(task, 0), await first(world, task)) for task in world.tasks("test")[:4]}
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    again = textworld()
    for task in again.tasks("test")[:4]:
        assert (again.solve(task, 1), await first(again, task)) == made[task.id]
    folders = sorted(tmp_path.glob("textworld-*/*"))
    assert [folder.name.split("-")[0] for folder in folders] == [
        "coin_collector",
        "cooking",
        "simple",
        "treasure_hunter",
    ]
    times = [(folder / "game.z8").stat().st_mtime_ns for folder in folders]
    again.solve(again.tasks("test")[0], 0)
    assert [(folder / "game.z8").stat().st_mtime_ns for folder in folders] == times
    again.crew.close()
    again.solvers.close()


async def first(world, task) -> str:
    session = world.open()
    text = (await session.reset(task, 0)).messages[1].content
    await session.close()
    return text


@needs_suite
async def test_a_fork_goes_on_from_where_it_was(world):
    task = world.tasks("test")[7]
    assert task.domain == "cooking"
    solution = world.solve(task, 0)
    one, fork = world.open(), world.open()
    await one.reset(task, 0)
    for message in solution[:5]:
        await one.step(message)
    await fork.restore(await one.snapshot())
    assert fork.score == one.score > 0
    for message in solution[5:]:
        assert await fork.step(message) == await one.step(message)
    assert fork.score == 1.0
    for session in (one, fork):
        await session.close()


@needs_suite
async def test_hints_are_possible_commands_and_the_way_is_not_told(world):
    silent = textworld(hints=False)
    task = world.tasks("test")[8]
    assert (task.domain, task.difficulty) == ("coin_collector", 2.0)
    shown, bare = await first(world, task), await first(silent, task)
    assert shown.startswith(bare + "\nCommands: ")
    assert "coin" in bare
    assert bare.partition("-=")[0].count(".") <= 2  # one sentence, not one for each of the ten moves
    assert world.solve(task, 0)[0].tool_calls[0].arguments["command"] in shown.rpartition("Commands: ")[2].split("; ")
    silent.crew.close()


@needs_suite
async def test_mistakes_and_the_machine_s_own_commands_are_answered_in_words(world):
    task = world.tasks("test")[3]
    said = [
        step.observation.messages[0].content.partition("\nCommands")[0]
        for step in await play(world, task, acts(["xyzzy", "look. QUIT", "y", "restart", "a\nb é", "\0", "\0look"]))
    ]
    assert said[0] == "That's not a verb I recognise."
    assert said[1] == "'quit' is not a command of the game."
    assert said[3] == "'restart' is not a command of the game."
    assert said[4] == "That's not a verb I recognise."
    assert said[5]
    assert said[6].startswith("-= Kitchen =-")


@needs_suite
def test_tasks_are_fixed_and_say_what_they_are(world):
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert [len(split) for split in tasks.values()] == [4000, 800, 800]
    assert len({task.id for split in tasks.values() for task in split}) == 5600
    assert tasks["dev"][7].id == "textworld/cooking/1/1000001"
    assert tasks["dev"][7].data["settings"]["split"] == "valid"
    assert tasks["test"][2].data["settings"]["test"] is True
    assert {t.difficulty for t in textworld("simple", level=1).tasks("dev")} == {1.0}
    with pytest.raises(PartError, match=r"no challenge 'coins_collector'; did you mean 'coin_collector'"):
        textworld("coins_collector")
    with pytest.raises(PartError, match=r"level is 3; give 0, 1 or 2"):
        textworld(level=3)
    with pytest.raises(PartError, match="no split 'tests'"):
        world.tasks("tests")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as missing:
        textworld()
    assert str(missing.value) == f"textworld is not installed; run:  {INSTALL}"
