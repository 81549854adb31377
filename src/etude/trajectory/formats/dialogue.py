"""What the formats' `read` and `write` are made of: checked fields, tied tool calls, the fields every row may have."""

import base64
import binascii
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from etude.core.errors import FormatError, suggest
from etude.trajectory.formats.rows import kind, loads
from etude.trajectory.graph import Episode, Image, Message, ToolCall, Trajectory

RESIDUAL = "_format"
"""Where meta holds what a row had beyond its messages; see `base`."""
CODE_LANGUAGES = {
    "bash",
    "c",
    "cpp",
    "go",
    "java",
    "javascript",
    "julia",
    "lua",
    "php",
    "powershell",
    "python",
    "r",
} | {*("ruby", "rust", "sh", "shell", "sql", "typescript")}
"""A call named after one of these, with `code` as its only argument, is a piece of code to run."""


def trajectory_of(
    row: dict[str, Any],
    messages: Iterable[Message],
    tools: list[dict[str, Any]],
    known: Collection[str],
    id: str = "id",
) -> Trajectory:
    """A trajectory of one episode, with the common fields of a row (task, reward, …) and its unknown ones as meta."""
    trajectory = Trajectory("", "", tools=tools)
    meta = {key: value for key, value in row.items() if key not in known and key != RESIDUAL}
    name = meta.pop(id, "")
    trajectory.id = str(name) if isinstance(name, (str, int)) and not isinstance(name, bool) else ""
    for key in ("task", "environment", "split"):
        if isinstance(meta.get(key), str):
            setattr(trajectory, key, meta.pop(key))
    leaf = None
    for message in link(messages, tools):
        leaf = trajectory.add(message, leaf)
    if leaf is None:
        raise FormatError("an empty dialogue")
    turns = sum(m.role == "assistant" for m in trajectory.messages)
    episode = Episode(leaf, turns=turns, reward=_number(meta, "reward"), score=_number(meta, "score"))
    if episode.reward is None and isinstance(meta.get("success"), bool):
        episode.reward = float(meta["success"])
    trajectory.episodes = [episode]
    trajectory.meta = meta
    return trajectory


def _number(meta: dict[str, Any], key: str) -> float | None:
    if isinstance(meta.get(key), bool) or not isinstance(meta.get(key), (int, float)):
        return None
    number = real(meta, key)
    del meta[key]
    return number


def row_of(trajectory: Trajectory, body: dict[str, Any], known: Collection[str], id: str = "id") -> dict[str, Any]:
    """A row with a format's own fields, the common ones, and what meta holds beside them."""
    episode = trajectory.episodes[0]
    head: dict[str, Any] = {id: trajectory.id}
    if trajectory.task not in ("", trajectory.id):
        head["task"] = trajectory.task
    head |= {key: getattr(trajectory, key) for key in ("environment", "split") if getattr(trajectory, key)}
    tail = {
        key: value for key in ("reward", "score") if (value := getattr(episode, key)) is not None and value == value
    }
    extra = {k: v for k, v in trajectory.meta.items() if k != RESIDUAL and k not in head and k not in known}
    return head | extra | body | tail


def link(messages: Iterable[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """Check a dialogue and tie each tool result to its call: ids where there are none are `call_0`, `call_1`, ….

    Raises FormatError for a wrong role, a result without a call, and a call to a tool that is not offered.
    """
    messages = list(messages)
    offered = {tool["name"] for tool in tools}
    taken = {call.id for m in messages for call in m.tool_calls}
    fresh = (id for n in range(10**9) if (id := f"call_{n}") not in taken)
    waiting: list[ToolCall] = []
    linked = []
    for n, message in enumerate(messages):
        if message.role not in ("system", "user", "assistant", "tool"):
            raise FormatError(f"message {n}: wrong role {message.role!r}")
        if message.tool_calls and message.role != "assistant":
            raise FormatError(f"message {n}: tool calls in a message of role {message.role!r}")
        for call in message.tool_calls:
            if offered and call.name not in offered and not is_code(call):
                raise FormatError(
                    f"message {n}: call to {call.name!r}, which is not offered; {suggest(call.name, offered)}"
                )
        if message.tool_calls:
            message = replace(message, tool_calls=tuple(replace(c, id=c.id or next(fresh)) for c in message.tool_calls))
            waiting = [*message.tool_calls, *waiting]  # a result belongs to the latest call that it fits
        if message.role == "tool":
            call = _answered(message, waiting)
            if call is None:
                raise FormatError(f"message {n}: tool result {message.tool_call_id or message.name!r} without a call")
            waiting.remove(call)
            message = replace(message, tool_call_id=call.id, name=message.name or call.name)
        linked.append(message)
    return linked


def is_code(call: ToolCall) -> bool:
    """Whether a call is a piece of code to run, which needs no tool to be listed."""
    return call.name in CODE_LANGUAGES and list(call.arguments) == ["code"] and isinstance(call.arguments["code"], str)


def _answered(result: Message, waiting: list[ToolCall]) -> ToolCall | None:
    if result.tool_call_id:
        return next((call for call in waiting if call.id == result.tool_call_id), None)
    named = [call for call in waiting if call.name == result.name]
    return (named or waiting or [None])[0]


def need(row: Any, key: str, kinds: type | tuple[type, ...], where: str = "") -> Any:
    """`row[key]`, checked. Raises FormatError for a missing key or another type."""
    place = f"{where}: " if where else ""
    if not isinstance(row, dict):
        raise FormatError(f"{place}{kind(row)}, not an object")
    if key not in row:
        raise FormatError(f"{place}missing key {key!r}")
    if not isinstance(row[key], kinds):
        expected = " or ".join(kind(k()) for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise FormatError(f"{place}{key!r} is {kind(row[key])}, not {expected}")
    return row[key]


def real(row: Any, key: str, where: str = "") -> float:
    """`row[key]` as a float. Raises FormatError for what is not a number, or too large a one."""
    value = need(row, key, (int, float), where)
    if isinstance(value, bool):
        raise FormatError(f"{where}: {key!r} is a boolean, not a number".removeprefix(": "))
    try:
        return float(value)
    except OverflowError:
        raise FormatError(f"{where}: {key!r} is too large a number".removeprefix(": ")) from None


def words(row: dict[str, Any], key: str, where: str = "") -> str:
    """An optional text: empty when missing or null. Raises FormatError for another type."""
    return "" if row.get(key) is None else need(row, key, str, where)


def read_arguments(value: Any, where: str) -> dict[str, Any]:
    """A call's arguments, an object or JSON text of one; nothing means none."""
    if isinstance(value, str) and value.strip():
        try:
            value = loads(value)
        except FormatError as error:
            raise FormatError(f"{where}: arguments are {error}") from None
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"{where}: arguments are {kind(value)}, not an object")
    return value


def read_tools(value: Any) -> list[dict[str, Any]]:
    """Tools as `{name, description, parameters}`, from such a list, OpenAI's wrapping of it, or JSON text of either."""
    if isinstance(value, str) and value.strip():
        value = loads(value)
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise FormatError(f"'tools' is {kind(value)}, not a list")
    tools = [t["function"] if isinstance(t, dict) and isinstance(t.get("function"), dict) else t for t in value]
    for n, tool in enumerate(tools):
        need(tool, "name", str, f"tools[{n}]")
    return tools


def write_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_image(uri: str, where: str) -> Image:
    """An image in a `data:` address. Raises FormatError for a link: what it pointed to is not in the file."""
    head, _, data = uri.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise FormatError(f"{where}: the image is a link ({uri:.60}), not data; put it into the row as data:…;base64,…")
    try:
        return Image(base64.b64decode(data, validate=True), head[5:-7])
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{where}: the image is not base64: {error}") from None


def write_image(image: Image) -> str:
    return f"data:{image.media};base64,{base64.b64encode(image.data).decode()}"
