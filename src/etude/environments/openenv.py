"""OpenEnv: an environment behind a server of Meta's and Hugging Face's OpenEnv, over its WebSocket.

https://github.com/meta-pytorch/OpenEnv, the protocol of openenv-core 0.3. Each episode has a connection, and with it an
environment of its own on the server. What the server calls an action is the tool `act`, with the action's JSON schema;
a server of MCP tools (`MCPEnvironment`) shows these instead. An episode's reward is the sum of its steps' rewards. What
the server's code raises is its own fault and ends the episode; an action that does not fit its model is the agent's.

A task is a seed, or a row of arguments for the server's `reset`. What the server holds cannot be copied, so a fork is
made by replay, which is exact where the server follows its seed. The server must take at least two connections
(`max_concurrent_envs`), for forks, and `at_once` must not be more than it takes.

Departures: an observation is shown as JSON, or as its text where it has one text alone; `metadata` is neither shown nor
asked for. The server's code is not run here, and openenv-core is not needed.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession, hashed_split
from etude.environments.functions import ToolError
from etude.environments.sources import checked
from etude.protocols import SPLITS, Observation, Task
from etude.trajectory import Message

INSTALL = "pip install 'etude[openenv]'"
FIRST_SEED = {"train": 0, "dev": 10**6, "test": 2 * 10**6}
LARGEST = 100 * 2**20  # bytes of a message, as in the suite's own client
MCP = {"type", "tool_name", "arguments"}
HIDDEN = ("done", "reward", "metadata")


@part
@dataclass(eq=False)
class openenv(Tasks):
    """One OpenEnv server. Raises MissingExtra where the package `websockets` is not installed."""

    url: str
    """The server's address, such as `http://localhost:8000`."""
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Arguments of `reset`, one row a task, which fall into the splits by a hash (80/10/10). Without: seeds."""
    instructions: str = ""
    """The system message."""
    size: int = 2000
    """Without rows: tasks in the split `train`; `dev` and `test` have a tenth."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """Of a whole episode."""
    at_once: int = 8
    max_steps: int | None = None
    """Messages after which the episode ends with what it has."""
    call_seconds: float = 60.0
    """What the server may take for an answer."""

    def __post_init__(self) -> None:
        self.reward_range = (float(self.reward_range[0]), float(self.reward_range[1]))
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise PartError(f"environments/openenv: url {self.url!r} does not begin with http:// or https://")
        self.url = self.url.rstrip("/")
        self.local = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        self.schema: dict[str, Any] | None = None
        self.name = f"openenv/{self.url.split('//')[1]}"
        try:
            import websockets  # noqa: F401
        except ImportError as error:
            raise missing_extra("openenv", "websockets") from error

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in SPLITS:
            raise PartError(f"{self.name} has no split {split!r}; {suggest(split, SPLITS)}")
        if not self.rows:
            size = self.size if split == "train" else self.size // 10
            return LazyTasks(lambda i: self._task(split, i, {"seed": FIRST_SEED[split] + i}), size)
        places = [hashed_split(json.dumps(row, sort_keys=True)) for row in self.rows]
        return [self._task(split, i, self.rows[i]) for i, place in enumerate(places) if place == split]

    def _task(self, split: str, i: int, row: dict[str, Any]) -> Task:
        return Task(f"{self.name}/{split}/{i}", self, split, row, self.name, provenance=self.url)

    def open(self) -> OpenEnvSession:
        return OpenEnvSession(self)


class OpenEnvSession(ToolSession):
    """One connection; `reset` makes a new one."""

    def __init__(self, world: openenv):
        super().__init__(max_steps=world.max_steps, max_chars=20_000, call_seconds=world.call_seconds)
        self.world = world
        self.socket: Any = None

    async def begin(self, task: Task, seed: int) -> Observation:
        from websockets.asyncio.client import connect

        await self.close()
        address = "ws" + self.world.url.removeprefix("http") + "/ws"
        here: dict[str, Any] = {"proxy": None} if self.world.local else {}
        try:
            self.socket = await connect(address, max_size=LARGEST, **here)
        except Exception as error:
            raise EnvironmentFault(f"no OpenEnv server answers at {self.world.url}: {error}") from error
        self.earned = 0.0
        first = await self._told("reset", task.data)
        action = await self._schema()
        self.mcp = set(action["properties"]) <= MCP
        if self.mcp:
            listed = await self._told("step", {"type": "list_tools"})
            self.tools = [
                {
                    "name": t["name"],
                    "description": t["description"],
                    "parameters": checked(t["name"], t["input_schema"]),
                }
                for t in listed["observation"]["tools"]
            ]
        else:
            self.tools = [{"name": "act", "description": action.pop("description", "") or "act", "parameters": action}]
        system = [Message("system", self.world.instructions)] if self.world.instructions else []
        return Observation((*system, Message("user", _show(first["observation"]) or "Begin.")))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if self.mcp:
            arguments = {"type": "call_tool", "tool_name": name, "arguments": arguments}
        told = await self._told("step", arguments)
        self.earned += float(told.get("reward") or 0.0)
        self.done = bool(told.get("done"))
        seen = told["observation"]
        if self.mcp:
            if error := seen.get("error"):
                raise ToolError(error["message"])
            result = seen.get("result")
            seen = result.get("data", result) if isinstance(result, dict) else result  # FastMCP's own wrapping
        return _show(seen)

    async def finish(self, answer: str) -> float:
        return self.earned

    def current_reward(self) -> float:
        return self.earned

    async def close(self) -> None:
        socket, self.socket = self.socket, None
        if socket is not None:
            with contextlib.suppress(Exception):  # the server may be gone
                await socket.send(json.dumps({"type": "close"}))
                await socket.recv()  # nothing but the end, by which the server has freed the place
            await socket.close()

    async def _told(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """What the server answers to a message. ToolError where it finds an action ill-formed."""
        from websockets.exceptions import ConnectionClosed

        place = f"{self.world.url}, {kind}"
        try:
            with contextlib.suppress(ConnectionClosed):  # a server that is full says so and hangs up
                await self.socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(await self.socket.recv())
        except Exception as error:
            raise EnvironmentFault(f"{place}: {type(error).__name__}: {error}") from error
        told = answer["data"]
        if answer["type"] != "error":
            return told
        code = told.get("code")
        if code == "VALIDATION_ERROR" and kind == "step":
            raise ToolError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in told["errors"]))
        hint = "; lower `at_once` or raise the server's max_concurrent_envs" if code == "CAPACITY_REACHED" else ""
        raise EnvironmentFault(f"{place}: {told['message']} ({code}){hint}")

    async def _schema(self) -> dict[str, Any]:
        """Of the server's actions, without what every action has."""
        if self.world.schema is not None:
            return copy.deepcopy(self.world.schema)
        async with httpx.AsyncClient(trust_env=not self.world.local, timeout=self.call_seconds) as client:
            try:
                answer = (await client.get(f"{self.world.url}/schema")).raise_for_status().json()
            except (httpx.HTTPError, ValueError) as error:
                raise EnvironmentFault(f"{self.world.url}/schema: {type(error).__name__}: {error}") from error
        schema = checked("act", answer["action"])
        schema["properties"] = {name: s for name, s in schema["properties"].items() if name not in HIDDEN}
        self.world.schema = copy.deepcopy(schema)  # a client for HTTP takes longer to make than all else here
        return schema


def _parameters(tool: dict[str, Any]) -> dict[str, Any]:
    return checked(tool["name"], tool["input_schema"])


def _show(seen: Any) -> str:
    if isinstance(seen, dict):
        seen = {name: value for name, value in seen.items() if name not in HIDDEN}
        if len(seen) == 1 and isinstance(text := next(iter(seen.values())), str):
            return text
    return seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False)
