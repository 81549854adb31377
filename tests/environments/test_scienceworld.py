"""environments/scienceworld: the suite's own houses and solutions, through workers."""

import importlib.util
import shutil

import pytest

from etude.core.errors import MissingExtra, PartError
from etude.environments.base import acts
from etude.environments.scienceworld import INSTALL, KINDS, scienceworld, variations
from etude.trajectory import Message, ToolCall

HERE = importlib.util.find_spec("scienceworld") is not None and shutil.which("java") is not None
needs_suite = pytest.mark.skipif(not HERE, reason=INSTALL)
QUICK = ["find-living-thing", "lifespan-longest-lived", "power-component", "use-thermometer"]


@pytest.fixture(scope="module")
def world():
    world = scienceworld(QUICK)
    yield world
    world.crew.close()
    world.solvers.close()


def some(world, split, each):
    """The first tasks of each kind."""
    tasks = list(world.tasks(split))
    return [task for kind in QUICK for task in [t for t in tasks if t.domain == kind][:each]]


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


def valid(word: str) -> Message:
    return Message("assistant", "", (ToolCall("valid_actions", {"word": word}),))


@needs_suite
@pytest.mark.parametrize("split", ["train", "dev", "test"])
async def test_the_suite_s_solutions_earn_exactly_1(world, split):
    for task in some(world, split, each=2):
        steps = await play(world, task, world.solve(task, 0))
        assert sum(step.reward for step in steps) == 1.0, task.id
        assert steps[-1].done
        if task.domain == "find-living-thing":
            assert sum(step.reward > 0 for step in steps) > 1  # subgoals


@needs_suite
async def test_a_wrong_focus_ends_with_minus_1(world):
    task = some(world, "test", each=1)[0]
    session = world.open()
    await session.reset(task, 0)
    wrong = await session.step(acts(["focus on agent"])[0])
    assert (wrong.reward, wrong.done) == (-1.0, True)
    assert [step.reward for step in await play(world, task, [Message("assistant", "Found it.")])] == [0.0]
    await session.close()


@needs_suite
async def test_two_machines_and_a_fork_see_the_same_house(world):
    for task in some(world, "train", each=1):
        solution = world.solve(task, 0)
        one, other, fork = world.open(), world.open(), world.open()
        assert await one.reset(task, 0) == await other.reset(task, 0)
        for message in solution[:3]:
            assert await one.step(message) == await other.step(message)
            await one.step(valid("door"))  # costs no time in the house
        await fork.restore(await one.snapshot())
        for message in solution[3:]:
            if not fork.done:
                assert await fork.step(message) == await one.step(message)
        assert fork.score == 1.0
        for session in (one, other, fork):
            await session.close()


@needs_suite
def test_solutions_are_the_same_in_another_machine(world):
    another = scienceworld(QUICK)
    for task in some(world, "train", each=1):
        assert world.solve(task, 0) == another.solve(task, 1)
    another.solvers.close()


@needs_suite
async def test_valid_actions_hold_the_word_and_are_known(world):
    task = some(world, "test", each=1)[0]
    session = world.open()
    await session.reset(task, 0)
    shown = (await session.step(valid("Open"))).observation.messages[0].content.splitlines()
    assert shown
    assert all("open" in command.lower() for command in shown)
    opened = (await session.step(acts([shown[0]])[0])).observation.messages[0].content
    assert "No known action" not in opened
    nothing = await session.step(valid("spaceship"))
    assert nothing.observation.messages[0].content == "No command that is possible now holds 'spaceship'."
    unknown = await session.step(acts(["fly\n\té"])[0])
    assert (unknown.reward, unknown.done) == (0.0, False)
    assert "No known action" in unknown.observation.messages[0].content
    await session.close()


@needs_suite
async def test_simplified_doors_are_open(world):
    easy = scienceworld("find-living-thing", simplifications=["openDoors", "teleportAction"])
    task, plain = easy.tasks("test")[0], world.tasks("test")[0]
    assert task.id == "scienceworld@openDoors,teleportAction/find-living-thing/225"
    assert plain.id == "scienceworld/find-living-thing/225"
    texts = {}
    for one, name in ((task, "easy"), (plain, "plain")):
        session = one.environment.open()
        texts[name] = (await session.reset(one, 0)).messages[1].content
        await session.close()
    assert "(that is closed)" in texts["plain"]
    assert "(that is open)" in texts["easy"]
    easy.crew.close()


@needs_suite
def test_the_splits_are_the_suite_s_own():
    assert len(KINDS) == 30
    whole = scienceworld()
    sizes = [len(whole.tasks(split)) for split in ("train", "dev", "test")]
    assert sizes == [3592, 1796, 1819]
    ids = {task.id for split in ("train", "dev", "test") for task in whole.tasks(split)}
    assert len(ids) == 7207
    from scienceworld import ScienceWorldEnv

    suite = ScienceWorldEnv()
    assert {kind: suite.get_max_variations(kind) for kind in suite.get_task_names()} == {
        kind: count for kind, (_, count, _) in KINDS.items()
    }
    for kind in QUICK:
        suite.load(kind)
        theirs = suite.get_variations_train(), suite.get_variations_dev(), suite.get_variations_test()
        assert list(theirs) == [list(variations(KINDS[kind][1], split)) for split in ("train", "dev", "test")]
    suite.close()


@needs_suite
def test_wrong_settings_are_refused(world):
    with pytest.raises(PartError, match=r"no kind 'boyl'; did you mean 'boil'"):
        scienceworld("boyl")
    with pytest.raises(PartError, match=r"no simplification 'openDoor'; did you mean 'openDoors'"):
        scienceworld(simplifications=["openDoor"])
    with pytest.raises(PartError, match="power-component cannot be done with noElectricalAction"):
        scienceworld(["boil", "power-component"], simplifications="noElectricalAction")
    with pytest.raises(PartError, match="no split 'tests'"):
        world.tasks("tests")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra, match="Java is not installed; run:  apt-get install default-jre-headless"):
        scienceworld()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[scienceworld\]'"):
        scienceworld()
