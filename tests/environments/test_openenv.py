"""environments/openenv: real servers, made with openenv-core, on this machine."""

import importlib.util
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from etude.core.errors import EnvironmentFault, PartError
from etude.trajectory import Message, ToolCall

pytest.importorskip("websockets")
from etude.environments.openenv import openenv

needs_server = pytest.mark.skipif(importlib.util.find_spec("openenv") is None, reason="pip install openenv-core==0.3.0")


def serve(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("openenv_server.py")), kind, str(port)])
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert process.poll() is None
        try:
            httpx.get(f"{url}/health", trust_env=False)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    return process, url


@pytest.fixture(scope="module")
def guess():
    process, url = serve("guess")
    yield url
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def shelf():
    process, url = serve("tools")
    yield url
    process.kill()
    process.wait()


def call(name, **arguments):
    return Message("assistant", tool_calls=(ToolCall(name, arguments, "call_1"),))


def text(step):
    return step.observation.messages[0].content


@needs_server
async def test_actions_are_a_tool_and_rewards_add_up(guess):
    world = openenv(guess, reward_range=(-2, 1), instructions="Guess.")
    session = world.open()
    task = world.tasks("dev")[0]
    first = await session.reset(task, 0)
    assert [m.content for m in first.messages] == ["Guess.", "a number from 1 to 9"]
    (tool,) = session.tools
    assert tool["name"] == "act"
    assert tool["description"] == "Guess a number."
    assert list(tool["parameters"]["properties"]) == ["number"]
    assert "maximum" in text(await session.step(call("act", number=12)))
    assert "needs 'number'" in text(await session.step(call("act")))
    number, tried = 1, 0
    while not (step := await session.step(call("act", number=number))).done:
        assert text(step) == "higher"
        number, tried = number + 1, tried + 1
    assert step.reward == 1.0 - 0.125 * tried
    await session.close()


@needs_server
async def test_a_seed_is_a_task_and_a_fork_goes_on_from_its_middle(guess):
    world = openenv(guess)
    secrets = set()
    for task in world.tasks("train")[:8]:
        session, fork = world.open(), world.open()
        await session.reset(task, 0)
        step = await session.step(call("act", number=5))
        if step.done:
            await session.close()
            continue
        await fork.restore(await session.snapshot())
        assert fork.current_reward() == session.current_reward() == -0.125
        for number in range(1, 10):
            one, other = [await s.step(call("act", number=number)) for s in (session, fork)]
            assert one == other
            if one.done:
                secrets.add(number)
                break
        await session.close()
        await fork.close()
    assert len(secrets) > 2


@needs_server
async def test_rows_are_arguments_of_reset(guess):
    world = openenv(guess, rows=[{"seed": n, "low": 7} for n in range(40)])
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert sum(map(len, tasks.values())) == 40
    session = world.open()
    assert (await session.reset(tasks["train"][0], 0)).messages[0].content == "a number from 7 to 9"
    await session.close()


@needs_server
async def test_tools_of_an_mcp_server_are_shown_as_they_are(shelf):
    world = openenv(shelf)
    session = world.open()
    await session.reset(world.tasks("test")[0], 0)
    assert [(t["name"], t["description"]) for t in session.tools] == [("put", "Put a number of an item on the shelf.")]
    await session.step(call("put", item="mug", number=2))
    assert text(await session.step(call("put", item="mug", number=3))) == "5 of mug"
    assert text(await session.step(call("put", item="mug", number=0))).startswith("error: ")
    step = await session.step(Message("assistant", "done"))
    assert (step.done, step.reward) == (True, 0.0)
    await session.reset(world.tasks("test")[0], 0)
    assert text(await session.step(call("put", item="mug", number=1))) == "1 of mug"
    await session.close()


@needs_server
async def test_faults_are_the_server_s_and_places_are_given_back(guess):
    world = openenv(guess)
    task = world.tasks("test")[0]
    sessions = [world.open() for _ in range(5)]
    for session in sessions[:4]:
        await session.reset(task, 0)
    with pytest.raises(EnvironmentFault, match=r"CAPACITY_REACHED.*lower `at_once`"):
        await sessions[4].reset(task, 0)
    await sessions[0].close()
    await sessions[4].reset(task, 0)
    with pytest.raises(EnvironmentFault, match="the server broke"):
        await sessions[4].step(call("act", number=0))
    for session in sessions:
        await session.close()
    with pytest.raises(EnvironmentFault, match=r"no OpenEnv server answers at http://127.0.0.1:9"):
        await openenv("http://127.0.0.1:9").open().reset(task, 0)


def test_wrong_settings_are_refused():
    with pytest.raises(PartError, match="does not begin with http"):
        openenv("localhost:8000")
    with pytest.raises(PartError, match="no split 'tests'"):
        openenv("http://localhost:8000").tasks("tests")
