"""Worlds made of MCP servers: a tiny one of our own over both transports, and published ones."""

import asyncio
import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import etude
from etude.core.errors import EnvironmentFault, PartError
from etude.environments.mcp import mcp
from etude.environments.sources import SourceSession, SourceWorld, State
from etude.policies.scripted import scripted
from etude.trajectory import Boundary, Message, ToolCall

pytest.importorskip("mcp")
SHELF = [sys.executable, str(Path(__file__).with_name("mcp_server.py"))]
ROWS = [{"prompt": f"Put {item} on the shelf.", "item": item, "split": "train"} for item in ("a lamp", "a hat")]


async def score(state: State, answer: str, row: dict) -> float:
    return float(await state.call("items") == row["item"])


def solve(row: dict) -> list[ToolCall | str]:
    return [ToolCall("add", {"item": row["item"]}), "Done."]


def shelf(server: object = SHELF, **settings: object) -> SourceWorld:
    return etude.mcp(server, **({"tasks": ROWS, "score": score, "solve": solve} | settings))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def episode(world: SourceWorld):
    session = world.open()
    try:
        await session.reset(world.tasks("train")[0], 0)
        yield session
    finally:
        await session.close()


async def ask(session: SourceSession, name: str, **arguments: object) -> str:
    step = await session.step(Message("assistant", tool_calls=(ToolCall(name, arguments, "c"),)))
    return step.observation.messages[0].content


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([*SHELF, "http", str(port)])
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    process.wait()


# -- play ----------------------------------------------------------------------------------------------------------


def test_solutions_reach_the_maximum_and_doing_nothing_earns_nothing():
    world = shelf()
    tasks = world.tasks("train")
    for task in tasks:
        (played,) = etude.rollout(scripted(world.solve(task, 0)), [task])
        assert (played.episodes[0].reward, played.environment) == (1.0, "mcp")
    (idle, *_) = etude.rollout(scripted([Message("assistant", "Done.")]), tasks)
    assert [e.reward for e in idle.episodes] == [0.0]


def test_each_of_many_episodes_has_a_server_of_its_own():
    world = shelf(tasks=ROWS[:1])
    (played,) = etude.rollout(scripted(world.solve(world.tasks("train")[0], 0)), world.tasks("train"), group=4)
    assert [e.reward for e in played.episodes] == [1.0] * 4  # one shared shelf would hold two lamps


async def test_over_http_each_episode_has_a_session_of_its_own(address):
    world = shelf(address)
    async with episode(world) as one, episode(world) as other:
        assert await ask(one, "add", item="a lamp") == "a lamp"
        assert await ask(other, "items") == "nothing"
        assert (await one.step(Message("assistant", "Done."))).reward == 1.0
        assert (await other.step(Message("assistant", "Done."))).reward == 0.0


@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_a_fork_is_made_by_replay(over, address):
    world = shelf(SHELF if over == "stdio" else address)
    async with episode(world) as one:
        await ask(one, "add", item="a lamp")
        at_one = await one.snapshot()
        assert await ask(one, "add", item="a hat") == "a lamp, a hat"
        other = world.open()
        await other.restore(at_one)
        assert await ask(other, "items") == "a lamp"
        assert await ask(one, "items") == "a lamp, a hat"
        await one.restore(at_one)
        assert await ask(one, "items") == "a lamp"
        await other.close()


async def test_setup_prepares_the_folder_and_makes_calls_and_the_rest_of_the_tools_is_hidden():
    async def setup(state: State, row: dict) -> None:
        (state.folder / "list.txt").write_text(row["item"])
        await state.call("add", item="a box")

    world = shelf(setup=setup, show=["where", "items"])
    async with episode(world) as session:
        assert [tool["name"] for tool in session.tools] == ["where", "items"]
        assert await ask(session, "where") == "./x ['list.txt']"
        assert await ask(session, "items") == "a box"
        assert "no tool 'add'" in await ask(session, "add", item="x")
        folder = session.state.folder
    assert not folder.exists()
    with pytest.raises(PartError, match="show names no tool 'itms'; did you mean 'items'"):
        async with episode(shelf(show=["itms"])):
            pass


# -- what comes back -----------------------------------------------------------------------------------------------


async def test_all_pages_of_tools_and_their_schemas():
    async with episode(shelf()) as session:
        assert [t["name"] for t in session.tools][-3:] == ["sleep", "told", "where"]
        odd = next(tool for tool in session.tools if tool["name"] == "odd")
        assert odd["parameters"] == {"type": "object", "properties": {"size": {"type": "integer"}}}
        assert await ask(session, "odd", size="3") == "{'size': 3}"
        assert "expected integer" in await ask(session, "odd", size="wide")
        assert "takes no argument 'length'" in await ask(session, "odd", length=1)
        assert await ask(session, "free", length=1) == "{'length': 1}"


async def test_every_kind_of_content_is_told_in_words():
    async with episode(shelf()) as session:
        assert (await ask(session, "kinds")).splitlines() == [
            "words",
            "[image image/png, 5 bytes]",
            "[audio audio/wav, 6 bytes]",
            "[resource notes: file:///notes.txt] what was noted",
            "inside",
            "[resource file:///b, font/ttf, 2 bytes]",
        ]
        assert await ask(session, "structured") == '{"n": 1}'


async def test_what_the_tool_refuses_is_told_to_the_agent():
    async with episode(shelf()) as session:
        assert await ask(session, "add", item="") == "error: an item has a name"
        assert await ask(session, "refuse") == "error: not on Sundays"
        assert await ask(session, "items") == "nothing"


# -- faults --------------------------------------------------------------------------------------------------------


def failure(world: SourceWorld, name: str):
    (played,) = etude.rollout(
        scripted([Message("assistant", tool_calls=(ToolCall(name, {}),))]), world.tasks("train")[:1]
    )
    assert played.episodes[0].reward is None
    return played.episodes[0].failure


def test_a_server_that_fails_or_dies_or_hangs_is_no_fault_of_the_agent():
    failed = failure(shelf(), "fail")
    assert failed.boundary is Boundary.TOOL
    assert "the shelf fell" in failed.error
    died = failure(shelf(), "die")
    assert died.boundary is Boundary.TOOL
    assert "its last words: Traceback: out of wood" in died.error
    hung = failure(shelf(call_seconds=0.5), "sleep")
    assert hung.boundary is Boundary.TOOL
    assert "longer than 0.5 s" in hung.error or "Timed out" in hung.error


async def test_a_server_that_does_not_start_says_why():
    with pytest.raises(EnvironmentFault, match=r"'/no/server' did not start: FileNotFoundError"):
        async with episode(shelf("/no/server")):
            pass
    with pytest.raises(EnvironmentFault, match=r"did not start.*its last words: .*no_such_module"):
        async with episode(shelf([sys.executable, "-m", "no_such_module"])):
            pass
    with pytest.raises(EnvironmentFault, match="did not start: ConnectError"):
        async with episode(shelf(f"http://127.0.0.1:{free_port()}/mcp")):
            pass
    with pytest.raises(EnvironmentFault, match=r"did not start within 0.5 s"):
        async with episode(shelf([*SHELF, "late"], start_seconds=0.5)):
            pass
    with pytest.raises(PartError, match="'' is neither a command nor an address"):
        mcp("", tasks=ROWS, score=score)


async def test_no_process_outlives_its_episode():
    async with episode(shelf()) as session:
        folder = session.state.folder
        assert any(Path(f"/proc/{pid}/cwd").resolve() == folder for pid in _children())
    await asyncio.sleep(0)
    assert not _children()


def _children() -> list[str]:
    psutil = pytest.importorskip("psutil")
    ours = [child for child in psutil.Process().children() if "mcp_server.py" in " ".join(child.cmdline())]
    return [str(child.pid) for child in ours if "http" not in child.cmdline()]


# -- secrets -------------------------------------------------------------------------------------------------------


async def test_what_comes_from_the_environment_is_not_shown(address, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    async with episode(shelf(address, headers={"Authorization": "Bearer ${SHOP_TOKEN}"})) as session:
        assert await ask(session, "told") == "None Bearer ${SHOP_TOKEN}"
        assert "s3cret" not in repr(vars(session.world))
    async with episode(shelf(env={"SHOP_KEY": "${SHOP_TOKEN}"})) as session:
        assert await ask(session, "told") == "${SHOP_TOKEN} None"
    async with episode(shelf()) as session:
        assert await ask(session, "told") == "None None", "a server gets no variable that it was not given"
    with pytest.raises(PartError, match=r"names \$NO_TOKEN, which is not set; run:  export NO_TOKEN="):
        shelf(address, headers={"Authorization": "${NO_TOKEN}"})


# -- published servers ---------------------------------------------------------------------------------------------


def published(module: str) -> list[str]:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    return [sys.executable, "-m", module]


def test_mcp_server_git():
    def git(state: State, *words: str) -> str:
        whole = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(whole, cwd=state.folder, check=True, capture_output=True, text=True).stdout

    def setup(state: State, row: dict) -> None:
        git(state, "init", "-q")
        git(state, "config", "user.name", "a")
        git(state, "config", "user.email", "a@b")
        (state.folder / "a.txt").write_text("one")

    def judge(state: State, answer: str, row: dict) -> float:
        return float(git(state, "log", "--format=%s", "--all").split() == ["Begin"])

    commit = [
        ToolCall("git_status", {"repo_path": "missing"}),
        ToolCall("git_add", {"repo_path": ".", "files": ["a.txt"]}),
        ToolCall("git_commit", {"repo_path": ".", "message": "Begin"}),
    ]
    world = etude.mcp(
        published("mcp_server_git"),
        tasks=[{"prompt": "Commit a.txt with the message Begin.", "split": "train"}],
        setup=setup,
        score=lambda state, answer, row: (
            judge(state, answer, row) if (state.folder / ".git/refs/heads").exists() else 0
        ),
        solve=lambda row: [*commit, "Done."],
    )
    (task,) = world.tasks("train")
    (played,) = etude.rollout(scripted(world.solve(task, 0)), [task])
    assert played.episodes[0].reward == 1.0
    said = [message.content for message in played.messages if message.role == "tool"]
    assert said[0].startswith("error: ")
    assert said[1] == "Files staged successfully"


async def test_mcp_server_time():
    world = etude.mcp(published("mcp_server_time"), tasks=ROWS, score=lambda state, answer, row: 0.0)
    async with episode(world) as session:
        ask_for = {"source_timezone": "Asia/Tokyo", "time": "16:30", "target_timezone": "Asia/Kolkata"}
        assert "T13:00:00+05:30" in await ask(session, "convert_time", **ask_for)
        assert "Invalid timezone" in await ask(session, "convert_time", **{**ask_for, "source_timezone": "Asia/Toky"})
