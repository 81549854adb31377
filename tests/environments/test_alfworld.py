"""environments/alfworld: made houses, played by the suite's own rules, in workers."""

import importlib.util

import pytest

from etude.core.errors import MissingExtra, PartError
from etude.environments.alfworld import INSTALL, KINDS, ROOMS, alfworld
from etude.environments.base import acts
from etude.trajectory import Message

HERE = all(importlib.util.find_spec(package) for package in ("alfworld", "textworld", "fast_downward"))
needs_suite = pytest.mark.skipif(not HERE, reason=INSTALL)


@pytest.fixture(scope="module")
def world():
    world = alfworld()
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
@pytest.mark.parametrize("split", ["train", "test"])
async def test_solutions_reach_every_goal_by_the_suite_s_rules_and_none_is_reached_before(world, split):
    for task in world.tasks(split)[:12]:
        solution = world.solve(task, 0)
        steps = await play(world, task, solution)
        assert [step.reward for step in steps] == [0.0] * (len(solution) - 1) + [1.0], task.id
        assert steps[-1].done
        treated = {"Cleanable": "clean ", "Heatable": "heat ", "Coolable": "cool "}.get(KINDS[task.domain][0], "")
        said = [message.tool_calls[0].arguments["command"] for message in solution]
        assert any(command.startswith(treated) for command in said)
        assert sum(command.startswith("take") for command in said) == (2 if "two" in task.domain else 1)
    assert [step.reward for step in await play(world, task, [Message("assistant", "Done.")])] == [0.0]


@needs_suite
async def test_two_processes_and_a_fork_make_the_same_house(world):
    task = world.tasks("dev")[5]
    solution = world.solve(task, 0)
    one, other, fork = world.open(), world.open(), world.open()
    assert await one.reset(task, 0) == await other.reset(task, 0)
    for message in solution[:3]:
        assert await one.step(message) == await other.step(message)
    await fork.restore(await one.snapshot())
    for message in solution[3:]:
        assert await fork.step(message) == await one.step(message)
    assert (fork.done, fork.score) == (True, 1.0)
    for session in (one, other, fork):
        await session.close()


@needs_suite
async def test_what_is_shown_and_what_cannot_be_done(world):
    silent = alfworld(hints=False)
    task = world.tasks("test")[0]
    session, bare = world.open(), silent.open()
    shown = (await session.reset(task, 0)).messages[1].content
    plain = (await bare.reset(task, 0)).messages[1].content
    assert plain.startswith("You are in the middle of a room.")
    assert "Your task is to: " in plain
    assert shown.startswith(plain + "\nCommands: ")
    for command in ("fly", "take moon 1 from fridge 1", "a\nb é", ""):
        step = await bare.step(acts([command])[0])
        assert (step.observation.messages[0].content, step.reward, step.done) == ("Nothing happens.", 0.0, False)
    await session.close()
    await bare.close()
    silent.crew.close()


@needs_suite
def test_tasks_are_fixed_and_say_what_they_are(world):
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert [len(split) for split in tasks.values()] == [12_000, 1200, 1200]
    assert len({task.id for split in tasks.values() for task in split}) == 14_400
    assert tasks["test"][9].id == "alfworld/pick_heat_then_place_in_recep/test/1"
    assert (tasks["test"][9].difficulty, tasks["test"][9].skills) == (3.0, ("search", "heating"))
    assert {task.domain for task in tasks["dev"]} == set(KINDS)
    with pytest.raises(PartError, match=r"no kind 'pick_two'; did you mean 'pick_two_obj_and_place'"):
        alfworld("pick_two")
    with pytest.raises(PartError, match="no split 'tests'"):
        world.tasks("tests")


def test_no_room_is_in_two_splits():
    rooms = [room for split in ROOMS.values() for room in split]
    assert sorted(rooms) == list(range(1, 31))


@needs_suite
def test_a_house_is_drawn_from_a_room_of_its_split():
    from etude.environments.alfworld import House

    house, asked = House(hints=False), []
    room = house._room
    house._room = lambda number: asked.append(number) or room(number)
    for split, rooms in ROOMS.items():
        asked.clear()
        sentences = {house.problem(kind, split, n)[1] for kind in KINDS for n in range(5)}
        assert len(sentences) > 20
        assert {number % 100 for number in asked} <= set(rooms)
        assert {number // 100 for number in asked} == {0, 2, 3, 4}


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"alfworld is not installed; run:  pip install 'etude\[alfworld\]'"):
        alfworld()
