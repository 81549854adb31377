"""Tools that live elsewhere: worlds whose tools come from a server, with tasks and a score of one's own.

A `Source` is one episode's access to such tools: `environments/mcp.py` makes it from an MCP server,
`environments/openapi.py` from the description of an HTTP service. `SourceWorld` does the rest, as `World` does for
functions. What the server holds cannot be copied, so a fork is made by replay: the source is opened anew, `setup` runs
again, and the calls are repeated.
"""

import asyncio
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from etude.core.errors import EnvironmentFault, EtudeError, FormatError, PartError, suggest
from etude.environments.world import World, WorldSession
from etude.protocols import Observation, Task

VARIABLE = re.compile(r"\$\{(\w+)\}")


class Source(Protocol):
    """One episode's access to tools that live elsewhere."""

    async def start(self) -> None:
        """Called once, before all else. Raises EnvironmentFault where the tools cannot be reached."""
        ...

    async def tools(self) -> list[dict[str, Any]]:
        """Descriptions `{name, description, parameters}`; `parameters` is the JSON schema of an object."""
        ...

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What the tool answers. Raises ToolError for the caller's mistake, EnvironmentFault for the server's."""
        ...

    async def close(self) -> None:
        """May come after a `start` that failed."""
        ...


class State:
    """An episode as `setup` and `score` see it. They may keep what they like in attributes of their own."""

    def __init__(self, source: Callable[["State"], Source], headers: Mapping[str, str]):
        self.secrets: dict[str, str] = {}
        self.headers = {name: self.fill(text) for name, text in headers.items()}
        """HTTP headers of this episode. `setup` may add some, such as an account's; an MCP server is sent those that
        are there at the first call."""
        self._make, self._source = source, None

    @cached_property
    def folder(self) -> Path:
        """The episode's own folder, empty at first, in which a server's process runs. It goes when the episode ends."""
        return Path(tempfile.mkdtemp(prefix="etude-")).resolve()

    async def call(self, tool: str, /, **arguments: Any) -> str:
        """What a tool answers, be it shown to the agent or not. The first call starts the server.

        Raises ToolError where the tool refuses, EnvironmentFault where the server fails.
        """
        source = await self.source()
        try:
            return self.hide(await source.call(tool, arguments))
        except EtudeError as error:
            raise type(error)(self.hide(str(error))) from None

    async def source(self) -> Source:
        """The source, started when it is first asked for: what `setup` writes into the folder is there by then."""
        if self._source is None:
            self._source = self._make(self)
            try:
                await self._source.start()
            except EtudeError as error:
                raise type(error)(self.hide(str(error))) from None
        return self._source

    async def close(self) -> None:
        if self._source is not None:
            await self._source.close()
        if "folder" in self.__dict__:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def fill(self, text: str) -> str:
        """Put the environment's variables in the place of `${NAME}`; from then on their values are hidden."""
        self.secrets |= {name: os.environ[name] for name in variables(text)}
        return VARIABLE.sub(lambda found: self.secrets[found[1]], text)

    def hide(self, text: str) -> str:
        """The text without what `fill` put in, for a server may echo a header, and a trajectory is kept and shared; and
        with `.` for the folder, whose name differs from episode to episode."""
        for name, value in self.secrets.items():
            text = text.replace(value, f"${{{name}}}")
        return text.replace(str(self.folder), ".") if "folder" in self.__dict__ else text


def variables(text: str) -> list[str]:
    """The names in `${NAME}`. Raises PartError for one that the environment lacks."""
    names = VARIABLE.findall(text)
    for name in names:
        if not os.environ.get(name):
            raise PartError(f"{text!r} names ${name}, which is not set; run:  export {name}=...")
    return names


class SourceWorld(World):
    """An environment made of a source of tools and a table of tasks."""

    def __init__(
        self,
        source: Callable[[State], Source],
        tasks: str | Path | Sequence[Mapping[str, Any]],
        score: Callable[..., float | Awaitable[float]],
        *,
        setup: Callable[[State, dict[str, Any]], Any] | None = None,
        show: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        **settings: Any,
    ):
        """source: makes an episode's source.
        score: `score(state, answer, row) -> float`, sync or async; `state` is a `State`.
        setup: `setup(state, row)`, sync or async: brings the episode to the task's beginning. It may write into
            `state.folder` what a server's process is to find, and then make calls.
        show: the tools that the agent sees, all by default; the others are for `setup` and `score` alone.
        headers: HTTP headers; `${NAME}` in one stands for a variable of the environment, and no result shows its value.
        tasks and settings: as in `World`.
        """
        super().__init__((), tasks, score, **settings)
        self.source, self.prepare, self.show, self.headers = source, setup, show, dict(headers or {})
        for text in self.headers.values():
            variables(text)

    def open(self) -> "SourceSession":
        return SourceSession(self)


class SourceSession(WorldSession):
    """One episode of a `SourceWorld`."""

    world: SourceWorld
    state: State | None

    async def begin(self, task: Task, seed: int) -> Observation:
        await self.close()
        first = await super().begin(task, seed)
        self.state = State(self.world.source, self.world.headers)
        if self.world.prepare is not None:
            ready = self.world.prepare(self.state, dict(self.row))
            if inspect.isawaitable(ready):
                await ready
        there = {tool["name"]: tool for tool in await (await self.state.source()).tools()}
        for name in self.world.show or ():
            if name not in there:
                raise PartError(f"world {self.world.name!r}: show names no tool {name!r}; {suggest(name, there)}")
        self.tools = list(there.values()) if self.world.show is None else [there[name] for name in self.world.show]
        return first

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        assert self.state is not None
        return await self.state.call(name, **arguments)

    def save(self) -> None:
        """Nothing: the server's state can only be reached again by replay."""

    async def close(self) -> None:
        state, self.state = self.state, None
        if state is not None:
            await state.close()


# -- schemas ---------------------------------------------------------------------------------------------------------


def checked(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a tool as `ToolSession` wants them: an object's schema with `properties`, no `$ref` in it."""
    whole = inline(schema, schema)
    try:
        Draft202012Validator.check_schema(whole)
    except SchemaError as error:
        raise EnvironmentFault(f"tool {name!r} has a schema that is none: {error.message}; mend the server") from error
    plain = {key: value for key, value in whole.items() if key not in ("$schema", "$defs", "definitions")}
    return {"type": "object", "properties": {}} | plain


def inline(node: Any, root: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """A schema with what its `$ref`s mean in their place, and an `allOf` as one schema where its parts only add up.

    Where a schema contains itself, anything fits. Raises FormatError for a `$ref` that leads out of the document.

    >>> root = {"$defs": {"a": {"type": "string"}, "b": {"items": {"$ref": "#/$defs/b"}}}}
    >>> inline({"x": {"$ref": "#/$defs/a", "title": "A"}, "y": {"$ref": "#/$defs/b"}}, root)
    {'x': {'type': 'string', 'title': 'A'}, 'y': {'items': {}}}
    """
    if isinstance(node, list):
        return [inline(item, root, inside) for item in node]
    if not isinstance(node, Mapping):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):  # a property may be called `$ref`, too; its schema is no text
        if reference in inside:
            return {}
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return inline({**_at(root, reference), **beside}, root, (*inside, reference))
    made = {key: inline(value, root, inside) for key, value in node.items()}
    parts = made.get("allOf")
    if isinstance(parts, list):
        rest = {key: value for key, value in made.items() if key != "allOf"}
        return _sum([*parts, rest]) or made
    return made


def _at(root: Mapping[str, Any], reference: str) -> Any:
    """What a JSON pointer (RFC 6901) in a `$ref` leads to."""
    place: Any = root
    try:
        if not reference.startswith("#"):
            raise KeyError(reference)
        for step in reference[1:].split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            place = place[int(step)] if isinstance(place, list) else place[step]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise FormatError(f"$ref {reference!r} leads nowhere in the description; bundle it into one file") from error
    return place


def _sum(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One schema that says what all say together; None where two say different things of one key."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key == "properties":
                known = whole.setdefault(key, {})
                if any(name in known and known[name] != schema for name, schema in value.items()):
                    return None
                whole[key] = known | value
            elif key == "required":
                whole[key] = list(dict.fromkeys([*whole.get(key, ()), *value]))
            elif key in ("title", "description"):  # what the whole says of itself comes last
                whole[key] = value
            elif whole.setdefault(key, value) != value:
                return None
    return whole
