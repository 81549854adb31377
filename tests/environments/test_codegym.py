"""environments/codegym: the shipped problems, what is judged, and problems from elsewhere in a sandbox."""

import copy
import pickle

import pytest

from etude.core.errors import EnvironmentFault, PartError
from etude.environments import codegym
from etude.environments.codegym import LIMITS
from etude.evaluation.random_agent import RandomAgent
from etude.tools.problem import DONE, Dice, contains
from etude.tools.sandbox import Sandbox
from etude.trajectory import Message, ToolCall

SPLITS = ("train", "dev", "test", "domains")


@pytest.fixture(scope="module")
def world():
    return codegym(size=500)


def done(answer: str) -> Message:
    return Message("assistant", "", (ToolCall(DONE, {"answer": answer}, "c"),))


async def play(world, task, messages):
    """What the tools told before `done`, and the reward."""
    session, told, step = world.open(), [], None
    await session.reset(task, 0)
    try:
        for message in messages:
            step = await session.step(message)
            if message.tool_calls[0].name != DONE:
                told += [m.content for m in step.observation.messages]
    finally:
        await session.close()
    assert step is not None
    return told, step.reward


@pytest.mark.exact(114)
async def test_solutions_reach_the_reward_on_every_instance_and_are_told_no_answer(world):
    kinds = set()
    for task in [task for split in SPLITS for task in world.tasks(split)]:
        told, reward = await play(world, task, world.solve(task, 0))
        assert reward == 1.0, task.id
        assert len(told) == task.difficulty >= 2, task.id
        assert not any(contains(one, task.data["answer"]) or one.startswith("error") for one in told), task.id
        kinds.add(task.domain)
    assert kinds == set(world.sources)
    assert len(kinds) >= 30


@pytest.mark.exact(114)
async def test_a_random_answer_earns_nothing_but_by_chance(world):
    """Names and numbers as the problems have them; what is told on the way to them is no answer either."""
    earned = 0.0
    tasks = [task for split in SPLITS for task in world.tasks(split)[:100]]
    for task in tasks:
        dice = Dice(task.id)
        _, reward = await play(world, task, [done(dice.choice([*dice.names(1), str(dice.randrange(100))]))])
        earned += reward
        session, agent = world.open(), RandomAgent(task.id)
        await session.reset(task, 0)
        for _ in range(4):
            call = agent.call(dice.choice(session.tools[:-1]))
            step = await session.step(Message("assistant", "", (call,)))
            told = step.observation.messages[0].content
            many = len(task.data["answer"].split(",")) > 1
            assert not (many and contains(told, task.data["answer"])), (task.id, told)
    assert earned / len(tasks) < 0.02


@pytest.mark.exact(114)
async def test_the_same_seed_gives_the_same_instance_and_a_pickled_world_goes_on(world):
    for split in SPLITS:
        ours, theirs = world.tasks(split)[:50], codegym().tasks(split)[:50]
        assert [(t.id, t.data) for t in ours] == [(t.id, t.data) for t in theirs]
    again = pickle.loads(pickle.dumps(world))
    task = next(t for t in world.tasks("train") if t.domain == "pile")  # its tool takes away what it tells
    messages = world.solve(task, 0)
    session = world.open()
    await session.reset(task, 0)
    await session.step(messages[0])
    kept = pickle.loads(pickle.dumps(await session.snapshot()))
    for one in (session, again.open(), world.open()):
        await one.restore(copy.deepcopy(kept))
        steps = [await one.step(message) for message in messages[1:]]
        assert steps[-1].reward == 1.0


async def test_only_done_answers_within_the_steps(world):
    task = world.tasks("train")[0]
    right = task.data["answer"]
    session = world.open()
    for said, reward in ((Message("assistant", right), 0.0), (done(right.upper().replace(",", "")), 1.0)):
        await session.reset(task, 0)
        assert session.current_reward() == 0.0
        assert (await session.step(said)).reward == reward
    await session.reset(task, 0)
    first = world.solve(task, 0)[0]
    steps = [await session.step(first) for _ in range(2 * len(task.data["calls"]) + 2)]
    assert [step.done for step in steps[-2:]] == [False, True]
    assert steps[-1].reward == 0.0


def test_held_out_problems_share_no_tool_with_the_others(world):
    tools = {held: set() for held in (False, True)}
    for about in world.about.values():
        names = {tool["name"] for tool in about["tools"]}
        assert not names & tools[not about["held_out"]]
        tools[about["held_out"]] |= names
    train, other = ({t.domain for t in world.tasks(split)} for split in ("train", "domains"))
    assert not train & other
    assert train | other == set(world.sources)


def test_settings_and_kinds():
    few = codegym(kinds=["graph"], sizes=[3])
    assert {task.skills for task in few.tasks("test")} == {("graph",)}
    with pytest.raises(PartError, match="no kind 'grpah'; did you mean 'graph'"):
        codegym(kinds=["grpah"])
    with pytest.raises(PartError, match="no split 'tset'"):
        few.tasks("tset")


GOOD = '''
"""What is {a} with {b}?"""
KIND = "mine"
def inputs(rng, size):
    keys = rng.names(2)
    return {"worth": {key: rng.randrange(10, 50) for key in keys}, "a": keys[0], "b": keys[1]}
def spin(worth, seconds: int):
    """spin"""
    while seconds > 5: pass
    return open("/etc/hostname").read() if seconds == 3 else "spun"
def answer(worth: dict[str, int], a: str, b: str) -> int:
    spin(worth, 1)
    return worth[a] + worth[b] + 100
'''
BAD = {
    "endless": GOOD.replace("spin(worth, 1)", "spin(worth, 9)"),
    "greedy": GOOD.replace("spin(worth, 1)", "x = [0] * 10**9"),
    "broken": "def answer(",
    "short": GOOD.replace("worth[a] + worth[b] + 100", "7"),
    "quits": GOOD.replace("spin(worth, 1)", "__import__('os')._exit(0)"),
}


async def test_problems_from_elsewhere_are_tried_and_run_in_a_sandbox(tmp_path, monkeypatch):
    try:
        await Sandbox().shell("true")
    except EnvironmentFault as error:
        if "does not let it shut itself in" not in str(error):
            raise
        pytest.skip(str(error))
    monkeypatch.setitem(LIMITS, "seconds", 2)
    for name, source in {"good": GOOD, **BAD}.items():
        (tmp_path / f"{name}.py").write_text(source)
    world = codegym(folder=str(tmp_path), sizes=[2], size=10)
    assert set(world.about) == {"good"}
    assert set(world.refused) == set(BAD)
    assert "stopped" in world.refused["endless"]
    assert "MemoryError" in world.refused["greedy"]
    assert "does not load" in world.refused["broken"]
    assert "1 calls are enough" in world.refused["short"]
    task = world.tasks("train")[0]
    told, reward = await play(world, task, world.solve(task, 0))
    assert (len(told), reward) == (3, 1.0)
    spin = [Message("assistant", "", (ToolCall("spin", {"seconds": n}, "c"),)) for n in (3, 9)]
    told, reward = await play(world, task, [*spin, *world.solve(task, 0)])
    assert told[0].startswith("error: ")  # the sandbox does not show that file
    assert "stopped" in told[1]
    assert reward == 1.0
    with pytest.raises(PartError, match="no problem that can be used"):
        codegym(folder=str(tmp_path / "none"))
