"""environments/verifiers: real environments, made with verifiers, in its own interpreter.

ETUDE_VERIFIERS names the interpreter; `make test-worlds` makes one.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from etude.agents.loops.native import native
from etude.core.errors import EnvironmentFault, MissingExtra, PartError
from etude.environments.verifiers import INSTALL, verifiers
from etude.evaluation import plays
from etude.evaluation.conformance import conformance
from etude.policies.scripted import scripted
from etude.rollout.collect import collect
from etude.trajectory import Image, Message, ToolCall

PYTHON = os.environ.get("ETUDE_VERIFIERS", "")
SUITE = str(Path(__file__).with_name("verifiers_suite"))
needs_suite = pytest.mark.skipif(not PYTHON, reason=f"{INSTALL}; and set ETUDE_VERIFIERS to its python")


@pytest.fixture(scope="module")
def made():
    """Makes each world once, with two sessions, and ends its workers: they take seconds to start."""
    worlds = {}

    def make(environment, **settings):
        key = repr((environment, settings))
        if key not in worlds:
            worlds[key] = verifiers(environment, PYTHON, folder=SUITE, at_once=2, **settings)
        return worlds[key]

    yield make
    for world in worlds.values():
        world.crew.close()


def call(name, **arguments):
    return Message("assistant", tool_calls=(ToolCall(name, arguments, "call_1"),))


def say(text):
    return Message("assistant", text)


def texts(seen):
    return [message.content for message in seen.messages]


@needs_suite
async def test_rewards_add_up_by_their_weights_and_are_kept_with_the_metrics(made):
    world = made("backwards", arguments={"letters": 5})
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert sum(map(len, tasks.values())) == 60
    task = tasks["test"][0]
    answer = task.data["answer"]
    assert len(answer) == 5
    session = world.open()
    for said, exact, length in ((answer, 1.0, 1.0), ("abcde", 0.0, 1.0), ("", 0.0, 0.0)):
        first = await session.reset(task, 0)
        assert [(m.role, m.content) for m in first.messages] == [
            ("system", "Answer with a word."),
            ("user", f"Say {answer[::-1]} backwards."),
        ]
        step = await session.step(say(said))
        assert (step.done, step.reward) == (True, 0.75 * exact + 0.25 * length)
        assert step.info["scores"] == {"exact": exact, "length": length, "letters": len(said)}
    await session.close()
    (played,) = await collect(scripted([say(answer)]), [task], agent=native())
    assert played.episodes[0].reward == 1.0
    assert played.episodes[0].scores["letters"] == 5.0


@needs_suite
async def test_tools_run_where_the_environment_runs_them_and_mistakes_are_not_run(made):
    world = made("shelf")
    task = world.tasks("train")[0]
    item, missing = task.data["item"], task.data["want"] - task.data["have"]
    session = world.open()
    await session.reset(task, 0)
    tools = {tool["name"]: tool for tool in session.tools}
    assert {name: tool["description"] for name, tool in tools.items()} == {
        "stock": "How many of an item are on the shelf.",
        "order": "Order some of an item.",
    }
    assert tools["order"]["parameters"]["required"] == ["item", "count"]
    two = (ToolCall("stock", {"item": item}, "a"), ToolCall("order", {"item": item, "count": "many"}, "b"))
    step = await session.step(Message("assistant", "", two))
    assert [(m.tool_call_id, m.name) for m in step.observation.messages] == [("a", "stock"), ("b", "order")]
    assert texts(step.observation)[0] == str(task.data["have"])
    assert texts(step.observation)[1].startswith("error: order: argument 'count' is \"many\"")
    step = await session.step(call("stock", item="pen"))
    assert texts(step.observation) == ["Error executing tool stock: 'pen'"]
    assert await session.current_reward() == 0.0
    step = await session.step(call("order", item=item, count=missing))
    assert texts(step.observation) == [f"{missing} of {item} ordered"]
    assert await session.current_reward() == 1.0
    step = await session.step(say("Ordered."))
    assert (step.done, step.reward) == (True, 1.0)
    await session.close()


@needs_suite
async def test_the_environment_s_own_stop_ends_the_episode(made):
    world = made("shelf")
    session = world.open()
    await session.reset(world.tasks("train")[0], 0)
    ends = [(await session.step(call("order", item="mug", count=1))).done for _ in range(3)]
    assert ends == [False, False, True]
    with pytest.raises(EnvironmentFault, match="a session that is over"):
        await session.step(say("more"))
    await session.close()


@needs_suite
async def test_the_user_is_the_environment_s_and_the_seed_is_the_world_s(made):
    world = made("guessing", size=20, reward_range=(-0.5, 1.0))
    tasks = [task for split in ("train", "dev", "test") for task in world.tasks(split)]
    assert sorted(task.data["idx"] for task in tasks) == list(range(20))
    task, numbers = tasks[0], []
    session, fork = world.open(), world.open()
    for seed in (0, 0, 1, 2, 3):
        await session.reset(task, seed)
        least = task.data["least"]
        step = await session.step(say(str(least)))
        for number in range(least + 1, least + 9):
            if step.done:
                break
            assert texts(step.observation) == ["more"]
            if number == least + 1:
                assert await session.current_reward() == -0.5
                await fork.restore(await session.snapshot())
            step = await session.step(say(str(number)))
            assert await fork.step(say(str(number))) == step
        tries = number - least if number == least + 1 else round(1 / step.reward)
        assert step.reward == 1 / tries
        numbers.append(tries)
    assert numbers[0] == numbers[1]
    assert len({*numbers}) > 1
    await session.close()
    await fork.close()


@needs_suite
async def test_a_limit_ends_the_episode_as_verifiers_own_does(made):
    world = made("guessing", size=20, reward_range=(-0.5, 1.0), max_steps=2)
    session = world.open()
    await session.reset(world.tasks("train")[0], 0)
    assert not (await session.step(say("more than that"))).done
    step = await session.step(say("or less"))
    assert (step.done, step.reward, step.info["limit"]) == (True, -0.5, "max_steps")
    await session.close()


@needs_suite
async def test_a_prompt_may_be_messages_and_images(made):
    world = made("picture")
    (task,) = [task for split in ("train", "dev", "test") for task in world.tasks(split)]
    session = world.open()
    first = await session.reset(task, 0)
    assert [(m.role, m.content, len(m.images)) for m in first.messages] == [
        ("user", "Hello.", 0),
        ("assistant", "Show me a picture.", 0),
        ("user", "What is this?", 1),
    ]
    assert first.messages[2].images[0].media == "image/gif"
    assert isinstance(first.messages[2].images[0], Image)
    assert first.messages[2].images[0].data.startswith(b"GIF89a")
    assert (await session.step(say("a dot"))).reward == 1.0
    await session.close()


@needs_suite
async def test_what_fails_in_the_environment_is_its_fault_and_the_next_episode_is_whole(made):
    world = made("shelf")
    task = world.tasks("train")[0]
    session = world.open()
    await session.reset(task, 0)
    with pytest.raises(EnvironmentFault, match="the judge broke"):
        await session.step(say("break"))
    await session.reset(task, 0)
    assert (await session.step(say("nothing"))).reward == 0.0
    await session.close()


@needs_suite
async def test_what_is_not_played_is_said(made):
    with pytest.raises(EnvironmentFault, match="'pair' has the seats first, second; only those with one are played"):
        made("pair").tasks("train")
    with pytest.raises(EnvironmentFault, match="letter"):
        made("backwards", arguments={"letter": 3}).tasks("train")
    world = made("twice")
    (task,) = [task for split in ("train", "dev", "test") for task in world.tasks(split)]
    session = world.open()
    await session.reset(task, 0)
    with pytest.raises(EnvironmentFault, match="another conversation in the same episode"):
        await session.step(say("word"))
    await session.close()


@needs_suite
@pytest.mark.parametrize("environment", ["shelf", "guessing"])
async def test_it_passes_the_conformance_suite(environment):
    settings = {"environment": environment, "python": PYTHON, "folder": SUITE, "at_once": 2, "size": 40}
    settings |= {"reward_range": [-0.5, 1.0]} if environment == "guessing" else {}
    name = json.dumps({"verifiers": settings})
    report = await conformance(lambda: plays.build(name), name=name, episodes=2, at_once=2)
    assert {check: outcome.problems for check, outcome in report.checks.items() if outcome.problems} == {}


def test_an_interpreter_without_verifiers_is_told_how_to_get_it():
    world = verifiers("backwards", sys.executable)
    with pytest.raises(MissingExtra, match=r"has no verifiers; run:  .*pip install verifiers==0\.4\.0"):
        world.tasks("train")
    with pytest.raises(PartError, match="no interpreter at python 'no/python'; run:  python -m venv"):
        verifiers("backwards", "no/python")
    with pytest.raises(PartError, match="no split 'tests'"):
        verifiers("backwards", sys.executable).tasks("tests")
