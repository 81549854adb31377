"""Supervised processes: what needs an interpreter, a JVM or a browser of its own runs there, and dies there.

A `Crew` keeps worker processes. Each holds one object of a class and answers calls of its methods by name, with JSON
values over a socket. An episode hires a worker and releases it; a worker that was released serves the next episode. A
call that takes too long, processes that grow too large, or a worker that dies raise EnvironmentFault in the episode
that hired it; all that the worker started is killed, and the next episode gets a fresh one.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etude.core.errors import EnvironmentFault, missing_extra
from etude.tools import served

CHUNK = 1 << 16
LOOK = 0.5  # seconds between looks at memory: a look costs as much as a step of a text world


class Crew:
    """A pool of workers that run the same class with the same settings. Belongs to no event loop.

    >>> crew = Crew("string:Template", settings={"template": "$who is here"})
    >>> async def episode() -> str:
    ...     worker = await crew.hire()
    ...     text = await worker.call("substitute", who="Ann")
    ...     crew.release(worker)
    ...     return text
    >>> asyncio.run(episode())
    'Ann is here'
    >>> crew.close()
    """

    def __init__(
        self,
        target: str,
        *,
        settings: dict[str, Any] | None = None,
        python: str = sys.executable,
        size: int = 8,
        seconds: float = 60,
        start_seconds: float = 120,
        memory_mb: float = 2048,
        episodes: int = 200,
        env: dict[str, str] | None = None,
        loud: bool = False,
    ):
        """target: the class, as `package.module:Class`, or `path/to/file.py:Class` for a `python` without etude.
        settings: its keyword arguments, JSON values.
        python: the interpreter.
        size: workers at once; who comes later waits for one.
        seconds, start_seconds: what a call and the start may take.
        memory_mb: resident memory that a worker and its children may use.
        episodes: hirings after which a worker is replaced, in case the suite leaks.
        env: environment variables that it gets besides ours.
        loud: whether what it prints is shown, on stderr.
        """
        self.target, self.settings, self.python = target, settings or {}, python
        self.size, self.seconds, self.start_seconds = size, seconds, start_seconds
        self.memory_mb, self.episodes, self.env, self.loud = memory_mb, episodes, env or {}, loud
        self.idle: list[Worker] = []
        self.hired = 0

    async def hire(self) -> "Worker":
        """A worker for one episode; waits while `size` are hired. Raises EnvironmentFault where none can be started."""
        while self.hired >= self.size:  # polled: what waits in asyncio belongs to one event loop
            await asyncio.sleep(0.01)
        self.hired += 1
        try:
            while self.idle:
                worker = self.idle.pop()
                if worker.alive and worker.episodes < self.episodes:
                    break
                worker.kill()
            else:
                worker = Worker(self)
                await worker.ready()
        except BaseException:
            self.hired -= 1
            raise
        worker.episodes += 1
        return worker

    def release(self, worker: "Worker") -> None:
        """Give a worker back, dead or alive, once."""
        self.hired -= 1
        if worker.alive:
            self.idle.append(worker)

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """One call by a worker that is hired for it, from code that is not async; in a thread of its own, for the
        caller may be within a running event loop."""

        async def once() -> Any:
            worker = await self.hire()
            try:
                return await worker.call(method, **arguments)
            finally:
                self.release(worker)

        with ThreadPoolExecutor(1) as aside:
            return aside.submit(asyncio.run, once()).result()

    def close(self) -> None:
        """End the workers that nobody has hired."""
        while self.idle:
            self.idle.pop().kill()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "idle": [], "hired": 0}  # a copy of a crew starts workers of its own


class Worker:
    """One process and the object in it; a Crew makes it."""

    def __init__(self, crew: Crew):
        ours, theirs = socket.socketpair()
        path = sys.path if crew.python == sys.executable else []
        arguments = [str(theirs.fileno()), crew.target, json.dumps(crew.settings), json.dumps(path)]
        self.process = subprocess.Popen(
            [crew.python, "-u", served.__file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if crew.loud else subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # so that all it starts can be killed with it
            env={**os.environ, **crew.env},
        )
        theirs.close()
        ours.setblocking(False)
        self.sock, self.crew, self.episodes, self.looked = ours, crew, 0, 0.0
        self._end = weakref.finalize(self, _end, self.process, ours)

    @property
    def alive(self) -> bool:
        return self._end.alive and self.process.poll() is None

    async def ready(self) -> None:
        await self._ask(b"", self.crew.start_seconds, f"{self.crew.target}, starting")

    async def call(self, method: str, /, *, call_seconds: float | None = None, **arguments: Any) -> Any:
        """The method's result, a JSON value.

        call_seconds: what the call may take, by default the crew's `seconds`.
        Raises EnvironmentFault where the method raised (the worker lives on), or where the process died, took too long
        or grew too large.
        """
        line = json.dumps([method, arguments]).encode() + b"\n"
        limit = self.crew.seconds if call_seconds is None else call_seconds
        return await self._ask(line, limit, f"{self.crew.target}, call {method!r}")

    def kill(self) -> None:
        """End it and all it started. May be called twice."""
        self._end()

    async def _ask(self, line: bytes, limit: float, place: str) -> Any:
        if not self.alive:
            raise EnvironmentFault(f"{place}: the worker process is gone")
        asking = asyncio.ensure_future(self._exchange(line))
        try:
            end = time.monotonic() + limit
            while not asking.done():
                await asyncio.wait([asking], timeout=min(LOOK, max(0.0, end - time.monotonic())))
                if not asking.done() and time.monotonic() >= end:
                    raise EnvironmentFault(f"{place} took longer than {limit:g} s; the worker process was killed")
                self._look_at_memory(place)
            reply = asking.result()
        except BaseException as error:  # a cancelled episode too: what the worker would say next is nobody's answer
            asking.cancel()
            await asyncio.wait([asking])
            how = self._how_it_died() if isinstance(error, (OSError, EOFError)) else ""
            self.kill()
            if how:
                raise EnvironmentFault(f"{place}: the worker process died ({how})") from error
            raise
        if "error" in reply:
            fault = EnvironmentFault(f"{place}: {reply['error']}")
            fault.add_note(reply["trace"])
            raise fault
        return reply["value"]

    async def _exchange(self, line: bytes) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, line)
        parts = [b""]
        while not parts[-1].endswith(b"\n"):  # one answer for one call, so its line end is the last byte
            parts.append(await loop.sock_recv(self.sock, CHUNK))
            if not parts[-1]:
                raise EOFError
        return json.loads(b"".join(parts))

    def _how_it_died(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)  # a dying process hangs up a moment before it is dead
        code = self.process.poll()
        return signal.Signals(-code).name if code and code < 0 else f"exit status {code}"

    def _look_at_memory(self, place: str) -> None:
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        used = self.megabytes()
        if used > self.crew.memory_mb:
            raise EnvironmentFault(
                f"{place}: the worker's processes use {used:.0f} MB of memory_mb={self.crew.memory_mb:g}; they were "
                "killed"
            )

    def megabytes(self) -> float:
        """Resident memory of the process and all it started."""
        try:
            import psutil
        except ImportError as error:
            raise missing_extra("local", "psutil") from error
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += one.memory_info().rss
        return total / 2**20


def _end(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    sock.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
