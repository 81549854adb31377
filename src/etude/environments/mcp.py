"""The tools of an MCP server, with tasks and a score of one's own.

The Model Context Protocol (modelcontextprotocol.io) gives tools to agents over a process's standard input and output,
or over HTTP. With a command, each episode has a server process of its own, so that what the server keeps is the
episode's. With an address, each episode has a session of its own with one server, and the server must keep them apart.

Departures from a full client: the server's prompts, resources and questions to the client (sampling, elicitation) are
not used; images and sound are named, not shown.
"""

import asyncio
import contextlib
import json
import shlex
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from etude.core.errors import EnvironmentFault, PartError, missing_extra
from etude.environments.functions import ToolError
from etude.environments.sources import SourceWorld, State, checked, variables

PAGES = 100  # of a list of tools: a server that names a next page for ever must not hang an episode


def mcp(
    server: str | Sequence[str],
    *,
    tasks: str | Path | Sequence[Mapping[str, Any]],
    score: Callable[..., float | Awaitable[float]],
    env: Mapping[str, str] | None = None,
    start_seconds: float = 60.0,
    name: str = "mcp",
    call_seconds: float = 30.0,
    **settings: Any,
) -> SourceWorld:
    """A world whose tools are an MCP server's.

    server: a command, as a list or a line, or an address that begins with http. The command runs in `state.folder`, so
        files in it are best given by their full paths.
    env: variables that the command gets besides PATH, HOME and the like; `${NAME}` stands for one of ours.
    start_seconds: what the start of the server may take.
    tasks, score, setup, show, headers, ...: what `SourceWorld` is made from. Headers are for an address.

    Raises MissingExtra where the package `mcp` is not installed.
    """
    try:
        import mcp as _sdk  # noqa: F401
    except ImportError as error:
        raise missing_extra("mcp", "mcp") from error
    at = server if isinstance(server, str) and server.startswith(("http://", "https://")) else ""
    command = [] if at else shlex.split(server) if isinstance(server, str) else list(server)
    if not at and not command:
        raise PartError(f"world {name!r}: {server!r} is neither a command nor an address that begins with http")
    for text in (env or {}).values():
        variables(text)
    source = partial(
        Server, at=at, command=command, env=dict(env or {}), start_seconds=start_seconds, call_seconds=call_seconds
    )
    return SourceWorld(source, tasks, score, name=name, call_seconds=call_seconds, **settings)


class Server:
    """One connection to one server, a `Source`."""

    def __init__(
        self,
        state: State,
        *,
        at: str,
        command: list[str],
        env: dict[str, str],
        start_seconds: float,
        call_seconds: float,
    ):
        self.state, self.at, self.command, self.env = state, at, command, env
        self.start_seconds, self.call_seconds = start_seconds, call_seconds
        self.title = f"MCP server {at or shlex.join(command)!r}"
        self.leave = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.client: Any = None
        self.said: TextIO | None = None

    async def start(self) -> None:
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._stay(ready))
        await asyncio.wait([ready], timeout=self.start_seconds)
        if not ready.done():
            ready.cancel()
            raise EnvironmentFault(f"{self.title} did not start within {self.start_seconds:g} s{self._last_words()}")
        if (error := ready.exception()) is not None:
            raise EnvironmentFault(f"{self.title} did not start: {_reason(error)}{self._last_words()}") from error
        self.client = ready.result()

    async def _stay(self, ready: "asyncio.Future[Any]") -> None:
        """Hold the connection open: it must be left by the task that entered it, and calls come from many tasks."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                ready.set_result(await self._connect(stack))
                await self.leave.wait()
        except Exception as error:
            if not ready.done():
                ready.set_exception(error)

    async def _connect(self, stack: contextlib.AsyncExitStack) -> Any:
        from mcp import Client, StdioServerParameters, stdio_client
        from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

        if self.at:
            http = await stack.enter_async_context(create_mcp_http_client(self.state.headers))
            transport = streamable_http_client(self.at, http_client=http)
        else:
            self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed by `close`)
            env = {name: self.state.fill(text) for name, text in self.env.items()}
            command, *rest = self.command
            place = self.state.folder
            transport = stdio_client(StdioServerParameters(command=command, args=rest, env=env, cwd=place), self.said)
        # by handshake, which every server knows, and which over HTTP gives each episode a session of its own
        return await stack.enter_async_context(
            Client(transport, mode="legacy", read_timeout_seconds=self.start_seconds, cache=None)
        )

    async def tools(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(PAGES):
            page = await self._ask(self.client.list_tools(cursor=cursor))
            found += [
                {"name": t.name, "description": t.description or "", "parameters": checked(t.name, t.input_schema)}
                for t in page.tools
            ]
            cursor = page.next_cursor
            if not cursor:
                return found
        raise EnvironmentFault(f"{self.title}: its list of tools has more than {PAGES} pages")

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        result = await self._ask(self.client.call_tool(name, arguments, read_timeout_seconds=self.call_seconds))
        text = as_text(result.content, result.structured_content)
        if result.is_error:
            raise ToolError(text)
        return text

    async def _ask(self, request: Awaitable[Any]) -> Any:
        from mcp import MCPError
        from mcp.types import INVALID_PARAMS

        try:
            return await request
        except MCPError as error:
            if error.error.code == INVALID_PARAMS:  # such as a rule that the schema does not tell
                raise ToolError(error.error.message) from error
            raise EnvironmentFault(f"{self.title}: {error.error.message}{self._last_words()}") from error

    def _last_words(self) -> str:
        """The end of what a process wrote to stderr, which often says why it failed."""
        if self.said is None:
            return ""
        self.said.seek(0)
        lines = [line.strip() for line in self.said.read().splitlines() if line.strip()]
        return "; its last words: " + " | ".join(lines[-3:]) if lines else ""

    async def close(self) -> None:
        if self.task is None:
            return
        self.leave.set()
        if self.client is None:
            self.task.cancel()  # still starting
        await asyncio.wait([self.task])
        self.client = None
        if self.said is not None:
            self.said.close()


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def as_text(content: Sequence[Any], structured: Any = None) -> str:
    """A result's blocks as words: what is not text is named by its kind and size.

    structured: the result as JSON, which is shown where there are no blocks; servers that have both say the same twice.
    """
    if not content and structured is not None:
        return json.dumps(structured, ensure_ascii=False)
    return "\n".join(map(_block, content))


def _block(block: Any) -> str:
    if block.type == "text":
        return block.text
    if block.type in ("image", "audio"):
        return f"[{block.type} {block.mime_type}, {_bytes(block.data)} bytes]"
    if block.type == "resource_link":
        return f"[resource {block.name}: {block.uri}]" + (f" {block.description}" if block.description else "")
    inner = block.resource
    if hasattr(inner, "text"):
        return inner.text
    return f"[resource {inner.uri}, {inner.mime_type or 'of no named type'}, {_bytes(inner.blob)} bytes]"


def _bytes(base64: str) -> int:
    return len(base64.rstrip("=")) * 3 // 4
