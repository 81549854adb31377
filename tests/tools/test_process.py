"""Workers: calls, and the ways in which they end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from etude.core.errors import EnvironmentFault
from etude.environments.hosted import HostedSession
from etude.protocols import Observation, Task
from etude.tools.process import Crew
from etude.trajectory import Message, ToolCall

SUITE = """
import os, subprocess, sys, time

class Suite:
    def __init__(self, start=0):
        if start < 0:
            raise ValueError("a negative start")
        print("not an answer")
        self.n = start

    def add(self, n):
        print("not an answer either")
        self.n += n
        return {"n": self.n, "text": "é" * n}

    def pid(self):
        return os.getpid()

    def child(self):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

    def sleep(self, seconds):
        time.sleep(seconds)

    def grow(self, mb):
        self.held = b"x" * (mb << 20)
        time.sleep(30)

    def fail(self):
        raise KeyError("no such thing")

    def die(self, status):
        os._exit(status)
"""


@pytest.fixture
def suite(tmp_path: Path):
    (tmp_path / "suite.py").write_text(SUITE)
    crews = []

    def make(**settings) -> Crew:
        crews.append(Crew(f"{tmp_path / 'suite.py'}:Suite", **settings))
        return crews[-1]

    yield make
    for crew in crews:
        crew.close()


async def test_calls_share_the_object_and_prints_are_no_answers(suite):
    worker = await suite(settings={"start": 3}).hire()
    assert await worker.call("add", n=2) == {"n": 5, "text": "éé"}
    assert (await worker.call("add", n=100_000))["n"] == 100_005  # longer than one read of the socket


async def test_an_exception_inside_is_told_with_its_trace_and_the_worker_lives(suite):
    worker = await suite().hire()
    with pytest.raises(EnvironmentFault, match=r"call 'fail': KeyError: 'no such thing'") as caught:
        await worker.call("fail")
    assert "raise KeyError" in "".join(caught.value.__notes__)
    assert await worker.call("add", n=1) == {"n": 1, "text": "é"}


async def test_a_call_that_takes_too_long_kills_the_worker_and_its_children(suite):
    crew = suite(seconds=0.3)
    worker = await crew.hire()
    child = await worker.call("child")
    with pytest.raises(EnvironmentFault, match=r"call 'sleep' took longer than 0.3 s"):
        await worker.call("sleep", seconds=30)
    assert not worker.alive
    assert not running(child)
    with pytest.raises(EnvironmentFault, match="gone"):
        await worker.call("add", n=1)


async def test_a_worker_that_dies_says_how(suite):
    crew = suite(size=2)
    first, second = await crew.hire(), await crew.hire()
    with pytest.raises(EnvironmentFault, match="exit status 7"):
        await first.call("die", status=7)
    asking = asyncio.ensure_future(second.call("sleep", seconds=30))
    await asyncio.sleep(0.1)
    os.kill(second.process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match="SIGKILL"):
        await asking


async def test_a_worker_that_grows_too_large_is_killed_while_it_works(suite):
    worker = await suite(memory_mb=120).hire()
    with pytest.raises(EnvironmentFault, match=r"MB of memory_mb=120"):
        await worker.call("grow", mb=200)
    assert not worker.alive


async def test_a_cancelled_call_leaves_no_answer_for_the_next(suite):
    crew = suite()
    worker = await crew.hire()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.call("sleep", seconds=30), 0.2)
    crew.release(worker)
    fresh = await crew.hire()
    assert fresh is not worker
    assert (await fresh.call("add", n=1))["n"] == 1


async def test_released_workers_serve_again_until_they_are_due(suite):
    crew = suite(episodes=2)
    pids = []
    for _ in range(3):
        worker = await crew.hire()
        pids.append(await worker.call("pid"))
        crew.release(worker)
    assert pids[0] == pids[1] != pids[2]
    assert not running(pids[0])


async def test_no_more_than_size_at_once(suite):
    crew = suite(size=1)
    worker = await crew.hire()
    waiting = asyncio.ensure_future(crew.hire())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    crew.release(worker)
    assert await waiting is worker


async def test_a_class_that_cannot_be_made_is_told_and_frees_its_place(suite):
    crew = suite(size=1, settings={"start": -1})
    for _ in range(2):
        with pytest.raises(EnvironmentFault, match="starting: ValueError: a negative start"):
            await crew.hire()


def test_a_crew_belongs_to_no_event_loop(suite):
    crew = suite()

    async def episode() -> int:
        worker = await crew.hire()
        n = (await worker.call("add", n=1))["n"]
        crew.release(worker)
        return n

    assert [asyncio.run(episode()) for _ in range(2)] == [1, 2]


async def test_a_crew_can_be_asked_from_code_that_is_not_async(suite):
    crew = suite(size=1, settings={"start": 2})
    assert crew.ask("add", n=1) == {"n": 3, "text": "é"}  # though this loop is running
    assert crew.ask("add", n=1)["n"] == 4  # by the same worker
    with pytest.raises(EnvironmentFault, match="no such thing"):
        crew.ask("fail")
    assert (crew.hired, len(crew.idle)) == (0, 1)


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path):
    (tmp_path / "suite.py").write_text(SUITE)
    script = f"""
import asyncio, os, signal
from etude.tools.process import Crew
async def main():
    worker = await Crew({str(tmp_path / "suite.py") + ":Suite"!r}).hire()
    print(await worker.call("pid"), await worker.call("child"), flush=True)
    asyncio.ensure_future(worker.call("sleep", seconds=600))
    await asyncio.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    end = time.monotonic() + 20
    while any(map(running, pids)):
        assert time.monotonic() < end, "a worker outlived its supervisor"
        time.sleep(0.1)


class Counting(HostedSession):
    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = [{"name": "die", "description": "d", "parameters": {"type": "object", "properties": {}}}]
        return Observation((Message("user", str((await self.ask("add", n=1))["n"])),))

    async def call(self, name: str, arguments: dict) -> object:
        return await self.ask("die", status=1)


async def test_a_session_gets_another_worker_after_a_death_and_gives_it_back(suite):
    crew = suite(size=1)
    session = Counting(crew)
    task = Task("t", None)
    assert (await session.reset(task, 0)).messages[0].content == "1"
    with pytest.raises(EnvironmentFault, match="exit status 1"):
        await session.step(Message("assistant", "", (ToolCall("die", {}, "c"),)))
    assert (await session.reset(task, 0)).messages[0].content == "1"
    await session.close()
    await session.close()
    assert crew.hired == 0
    assert len(crew.idle) == 1


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
