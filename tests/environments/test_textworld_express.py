"""environments/textworld_express: the suite's own games and solutions, through workers."""

import importlib.util
import shutil

import pytest

from etude.agents.loops import native
from etude.core.errors import MissingExtra, PartError
from etude.environments.base import acts
from etude.environments.textworld_express import GAMES, INSTALL, textworld_express
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message

HERE = importlib.util.find_spec("textworld_express") is not None and shutil.which("java") is not None
needs_suite = pytest.mark.skipif(not HERE, reason=INSTALL)


@pytest.fixture(scope="module")
def world():
    world = textworld_express()
    yield world
    world.crew.close()
    world.solvers.close()


async def play(world, task, messages):
    """Rewards and texts of these messages, until the game is over."""
    session = world.open()
    steps = []
    await session.reset(task, 0)
    for message in messages:
        steps.append(await session.step(message))
        if steps[-1].done:
            break
    await session.close()
    return steps


def told(steps) -> list[str]:
    return [message.content for step in steps for message in step.observation.messages]


@needs_suite
@pytest.mark.parametrize("split", ["train", "dev", "test"])
async def test_the_suite_s_solutions_earn_exactly_1(world, split):
    for task in world.tasks(split)[:24]:  # each game at each of its levels
        steps = await play(world, task, world.solve(task, 0))
        assert sum(step.reward for step in steps) == 1.0, task.id
        assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True], task.id


@needs_suite
async def test_a_collected_episode_has_the_game_s_score(world):
    tasks = world.tasks("test")[:8]
    made = await collect(
        scripted({task.id: world.solve(task, 0) for task in tasks}), tasks, agent=native(), max_turns=99
    )
    assert [t.episodes[0].reward for t in made] == [1.0] * 8
    silent = await collect(scripted([Message("assistant", "I do not play.")]), tasks, agent=native())
    assert [t.episodes[0].reward for t in silent] == [0.0] * 8


@needs_suite
async def test_rewards_come_where_they_are_earned_and_a_wrong_answer_takes_all(world):
    task = next(t for t in world.tasks("test") if t.domain == "mapreader")
    rewards = [step.reward for step in await play(world, task, world.solve(task, 0))]
    assert [reward for reward in rewards if reward] == [0.5, 0.5]  # the coin is taken, and put into the box
    assert rewards[-1] == 0.5

    task = next(t for t in world.tasks("test") if t.domain == "sorting")
    right = world.solve(task, 0)
    largest_second = [*right[:2], *right[-2:]]
    steps = await play(world, task, largest_second)
    assert steps[1].reward > 0
    assert steps[-1].done
    assert sum(step.reward for step in steps) == -1.0


@needs_suite
async def test_two_machines_and_a_fork_play_the_same_game(world):
    for task in world.tasks("train")[8:16]:
        solution = world.solve(task, 0)
        half = len(solution) // 2
        one, other = world.open(), world.open()
        assert await one.reset(task, 0) == await other.reset(task, 0)
        for message in solution[:half]:
            assert await one.step(message) == await other.step(message)
        fork = world.open()
        await fork.restore(await one.snapshot())
        assert (fork.score, fork.actions) == (one.score, one.actions)
        for message in solution[half:]:
            if not fork.done:  # a solution of `twc` may walk on
                assert await fork.step(message) == await one.step(message)
        assert (fork.done, fork.score) == (True, 1.0)
        for session in (one, other, fork):
            await session.close()
    assert world.crew.hired == 0


@needs_suite
@pytest.mark.parametrize("game", ["coin", "twc"])
def test_solutions_that_walk_at_random_are_the_same_in_another_machine(world, game):
    another = textworld_express(game, level=2)
    for task in another.tasks("train")[:3]:
        assert world.solve(task, 0) == another.solve(task, 1)
    another.solvers.close()


@needs_suite
async def test_hints_are_commands_that_the_game_knows(world):
    task = world.tasks("test")[0]
    session, silent = world.open(), textworld_express(hints=False)
    first = (await session.reset(task, 0)).messages[1].content
    commands = first.rpartition("Commands: ")[2].split("; ")
    assert "look around" in commands
    for command in commands:
        (step,) = await play(world, task, acts([command]))
        assert "Unknown action" not in told([step])[0]
    shown = (await silent.open().reset(task, 0)).messages[1].content
    assert shown == first.rpartition("\nCommands: ")[0]
    await session.close()
    silent.crew.close()


@needs_suite
async def test_mistakes_are_answered_in_words(world):
    task = world.tasks("test")[2]
    assert task.domain == "coin"
    wrong = Message("assistant", "", (*acts(["fly"])[0].tool_calls, *acts(["a\nb é"])[0].tool_calls))
    assert [text.split(".")[0] for text in told(await play(world, task, [wrong]))] == [
        "Unknown action: I'm not sure what you mean"
    ] * 2
    solution = world.solve(task, 0)
    after = Message("assistant", "", (*solution[-1].tool_calls, *acts(["look around"])[0].tool_calls))
    steps = await play(world, task, [*solution[:-1], after])
    assert told(steps)[-1] == "error: the episode is over; this call was not run"
    assert sum(step.reward for step in steps) == 1.0


@needs_suite
async def test_an_episode_that_takes_too_long_keeps_what_it_has(world):
    short = textworld_express("mapreader", max_steps=6)
    task = short.tasks("test")[0]  # of seven steps, the fifth of which takes the coin
    steps = await play(short, task, short.solve(task, 0))
    assert (len(steps), steps[-1].done, steps[-1].info) == (6, True, {"limit": "max_steps"})
    assert sum(step.reward for step in steps) == 0.5
    short.crew.close()
    short.solvers.close()


@needs_suite
def test_tasks_are_fixed_and_say_what_they_are(world):
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert tasks["test"][17].id == "textworld_express/twc/2/20002"
    assert [len(split) for split in tasks.values()] == [8000] * 3
    assert len({task.id for split in tasks.values() for task in split}) == 24_000
    assert {t.domain for t in tasks["test"]} == set(GAMES)
    assert {t.difficulty for t in tasks["test"] if t.domain == "coin"} == {0.0, 1.0, 2.0}
    hard = textworld_express(["coin", "arithmetic"], level=2).tasks("dev")
    assert len(hard) == 1000
    assert {(t.domain, t.difficulty) for t in hard} == {("coin", 2.0)}
    assert hard[5].id == tasks["dev"][8 * 5 + 2].id == "textworld_express/coin/2/10005"
    assert hard[5].data == tasks["dev"][8 * 5 + 2].data


@needs_suite
def test_wrong_settings_are_refused(world):
    with pytest.raises(PartError, match=r"no game 'coins'; did you mean 'coin'"):
        textworld_express(["coins"])
    with pytest.raises(PartError, match=r"level is 1, which none of arithmetic has; give 0, 1 or 2"):
        textworld_express("arithmetic", level=1)
    with pytest.raises(PartError, match="no split 'tests'"):
        world.tasks("tests")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra, match="Java is not installed; run:  apt-get install default-jre-headless"):
        textworld_express()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[textworld-express\]'"):
        textworld_express()
