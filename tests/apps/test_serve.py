"""`etude env serve`: our own client plays an environment through it, and other clients find what they look for."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import etude
from etude.core.errors import PartError
from etude.environments.sources import SourceWorld, State
from etude.policies.scripted import scripted
from etude.trajectory import Message, ToolCall

pytest.importorskip("mcp")
SOURCES = str(Path(__file__).resolve().parents[2] / "src")
SERVE = [sys.executable, "-m", "etude", "env", "serve"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """`lookup` over HTTP, for whoever brings the token t0ken."""
    env = {**os.environ, "PYTHONPATH": SOURCES, "ETUDE_TOKEN": "t0ken"}
    command = [*SERVE, "{lookup: {size: 200}}", "--split", "test", "--http"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        yield process.stderr.readline().split()[0]
        process.terminate()
        process.stderr.read()


def through(server: str | list[str], tasks: list[Any], **settings: Any) -> SourceWorld:
    """The tasks of an environment that is played through its MCP server."""

    async def begin(state: State, row: dict) -> None:
        await state.call("begin", task=row["task"])

    async def submit(state: State, answer: str, row: dict) -> float:
        return json.loads(await state.call("submit", answer=answer))["reward"]

    rows = [{"prompt": task.id, "task": task.id, "split": "test"} for task in tasks]
    env = {"PYTHONPATH": SOURCES}
    return etude.mcp(server, tasks=rows, setup=begin, score=submit, env=env, show=["search"], **settings)


def rewards_and_results(task: Any, says: list[Message]) -> tuple[float | None, list[str]]:
    (played,) = etude.rollout(scripted(says), [task])
    assert played.episodes[0].failure is None
    return played.episodes[0].reward, [m.content for m in played.messages if m.role == "tool"]


@pytest.mark.parametrize("over", ["stdio", "http"])
def test_an_environment_gives_the_same_rewards_through_its_server(over, address, monkeypatch):
    monkeypatch.setenv("ETUDE_TOKEN", "t0ken")
    direct = etude.world("lookup", size=200)
    tasks = direct.tasks("test")[:1] if over == "stdio" else direct.tasks("test")[:5]
    server = [*SERVE, "{lookup: {size: 200}}", "--split", "test"]
    headers = {"Authorization": "Bearer ${ETUDE_TOKEN}"}
    world = through(server, tasks) if over == "stdio" else through(address, tasks, headers=headers)
    for task, served in zip(tasks, world.tasks("test"), strict=True):
        for says in (
            direct.solve(task, 0),
            [Message("assistant", "Answer: nowhere")],
            [Message("assistant", tool_calls=(ToolCall("search", {"qury": "x"}),)), *direct.solve(task, 0)],
        ):
            assert rewards_and_results(served, says) == rewards_and_results(task, says)
    assert rewards_and_results(tasks[0], direct.solve(tasks[0], 0))[0] == 1.0


async def test_over_http_each_client_has_an_episode_of_its_own(address, monkeypatch):
    monkeypatch.setenv("ETUDE_TOKEN", "t0ken")
    tasks = etude.world("lookup", size=200).tasks("test")[:2]
    world = through(address, tasks, headers={"Authorization": "Bearer ${ETUDE_TOKEN}"})
    sessions = [world.open(), world.open()]
    for session, task in zip(sessions, world.tasks("test"), strict=True):
        await session.reset(task, 0)
    for session, task in zip(sessions, tasks, strict=True):
        assert task.data["question"] in await session.state.call("task")
        await session.close()


# -- what other clients find -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def client(world: Any, **settings: Any):
    from mcp import Client

    from etude.apps.serve.mcp import server

    async with Client(server(world, **settings), mode="legacy") as connected:
        yield connected


async def said(connected: Any, name: str, **arguments: Any) -> str:
    result = await connected.call_tool(name, arguments)
    return ("error: " if result.is_error else "") + result.content[0].text


async def test_one_task_is_served_alone_and_ends_with_its_reward():
    world = etude.world("lookup", size=200)
    task = world.tasks("train")[4]
    async with client(world, task=task.id) as connected:
        tools = [tool.name for tool in (await connected.list_tools()).tools]
        assert tools == ["search", "task", "submit"]
        told = await said(connected, "task")
        assert task.data["question"] in told
        assert (await connected.get_prompt("task")).messages[0].content.text == told
        assert (await connected.read_resource("etude://task")).contents[0].text == told
        assert (await connected.list_prompts()).prompts[0].name == "task"
        assert (await connected.list_resources()).resources[0].uri == "etude://task"
        results = [await said(connected, c.name, **c.arguments) for m in world.solve(task, 0) for c in m.tool_calls]
        assert task.data["answer"] in results[-1]
        over = await said(connected, "submit", answer=world.solve(task, 0)[-1].content)
        assert json.loads(over) == {"done": True, "reward": 1.0}
        assert await said(connected, "search", query="again") == over, "what comes after the end changes nothing"
        assert await said(connected, "submit", answer="Answer: other") == over


async def test_tasks_come_one_after_another_and_by_their_ids():
    world = etude.world("lookup", size=200)
    tasks = world.tasks("train")
    async with client(world) as connected:
        assert "begin" in [tool.name for tool in (await connected.list_tools()).tools]
        assert tasks[0].data["question"] in await said(connected, "task")
        await said(connected, "submit", answer="Answer: nothing")
        assert tasks[1].data["question"] in await said(connected, "begin")
        assert tasks[7].data["question"] in await said(connected, "begin", task=tasks[7].id)
        assert "no task 'lookup/none'" in await said(connected, "begin", task="lookup/none")
        assert tasks[7].data["question"] in await said(connected, "task")
    with pytest.raises(PartError, match=r"no task 'x' in split 'train' of 'lookup'; the first is 'lookup/train/0'"):
        async with client(world, task="x"):
            pass


async def test_calls_that_come_together_are_taken_one_by_one():
    running = 0

    @etude.tool
    async def look() -> str:
        """Look."""
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.01)
        running -= 1
        return "seen"

    rows = [{"prompt": "Look.", "split": "train"}]
    world = etude.world(tools=[look], tasks=rows, score=lambda state, answer, row: float(answer == "yes"))
    async with client(world) as connected:
        assert await asyncio.gather(*(said(connected, "look") for _ in range(4))) == ["seen"] * 4


async def test_names_that_are_taken_and_tools_that_change():
    from mcp import Client, types

    @etude.tool
    def submit(text: str) -> str:
        """Hand in."""
        return f"taken: {text}"

    @etude.tool
    def broken() -> str:
        """Break."""
        raise KeyError("gone")

    rows = [{"prompt": "Hand in.", "split": "train"}]
    world = etude.world(tools=[submit, broken], tasks=rows, score=lambda state, answer, row: float(answer == "yes"))
    async with client(world) as connected:
        names = [tool.name for tool in (await connected.list_tools()).tools]
        assert names == ["submit", "broken", "task", "begin", "etude_submit"]
        assert await said(connected, "submit", text="it") == "taken: it"
        with pytest.raises(Exception, match="tool 'broken' failed: KeyError: 'gone'"):
            await said(connected, "broken")
        assert json.loads(await said(connected, "etude_submit", answer="yes"))["reward"] == 1.0

    changes: list[Any] = []

    async def heard(message: Any) -> None:
        changes.append(message)

    from etude.apps.serve.mcp import server

    async with Client(server(etude.world("bfcl"), split="test"), mode="legacy", message_handler=heard) as connected:
        await said(connected, "begin")
        assert any(isinstance(change, types.ToolListChangedNotification) for change in changes)


# -- HTTP ------------------------------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_served(address):
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "t0ken"}):
        assert httpx.post(address, json=asked, headers=headers).status_code == 401
    assert httpx.post(address, json=asked, headers={"Authorization": "Bearer t0ken"}).status_code != 401
    assert address.startswith("http://127.0.0.1:")


@pytest.mark.exact(34)
async def test_games_through_mcp_are_the_games_themselves():
    """The same seeds and actions, chance's, the oracle's and a wrong one, give the same traces and scores."""
    import random

    from mcp import Client, StdioServerParameters, stdio_client

    from etude.environments.arcade import GAMES, arcade

    async def here(task: Any, says: list[Message]) -> tuple[list[str], float]:
        session = task.environment.open()
        traced, reward = [m.content for m in (await session.reset(task, 0)).messages], 0.0
        for message in says:
            step = await session.step(message)
            traced, reward = traced + [m.content for m in step.observation.messages], reward + step.reward
        return traced, reward

    async def there(connected: Any, task: Any, says: list[Message]) -> tuple[list[str], float]:
        traced = (await said(connected, "begin", task=task.id)).split("\n\n")
        for message in says:
            traced.append(await said(connected, "act", **message.tool_calls[0].arguments))
        traced[-1], _, over = traced[-1].rpartition("\n")
        return traced, json.loads(over)["reward"]

    async def by_chance(task: Any) -> list[Message]:
        chance, session, made, done = random.Random(task.id), task.environment.open(), list[Message](), False
        await session.reset(task, 0)
        while not done:
            made.append(chance.choice(session.legal()))
            if len(made) == 2:
                made[-1] = Message("assistant", tool_calls=(ToolCall("act", {"action": "fly"}, "call_2"),))
            done = (await session.step(made[-1])).done
        return made

    games = ", ".join(GAMES)
    command = [*SERVE[1:], f"{{arcade: {{games: [{games}], held: []}}}}", "--split", "test"]
    server = StdioServerParameters(command=SERVE[0], args=command, env={"PYTHONPATH": SOURCES})
    world = arcade(games=list(GAMES), held=[])
    async with Client(stdio_client(server), mode="legacy") as connected:
        for task in world.tasks("test")[: 2 * len(GAMES)]:
            for says in (await by_chance(task), list(world.solve(task, 0))):
                assert await there(connected, task, says) == await here(task, says), task.id
