"""OpenAI's chat format: `messages` and `tools`, calls with their arguments as JSON text.

Read too: legacy `functions`, `function_call` and role `function`, and role `developer`. Content may be null or a list
of text and image parts; images must be `data:` addresses.
"""

from typing import Any

from etude.core.errors import FormatError
from etude.trajectory.formats.dialogue import (
    need,
    read_arguments,
    read_image,
    read_tools,
    row_of,
    trajectory_of,
    words,
    write_image,
    write_json,
)
from etude.trajectory.graph import Image, Message, ToolCall, Trajectory

ROLES = {"developer": "system", "function": "tool"}
KNOWN = ("messages", "tools", "functions")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def matches(row: dict[str, Any]) -> bool:
    return isinstance(row.get("messages"), list) and not dict_arguments(row["messages"])


def dict_arguments(messages: list[Any]) -> bool:
    """Whether some call has its arguments as an object rather than as JSON text."""
    for message in messages:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function", call) if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
                return True
    return False


def read(row: dict[str, Any]) -> Trajectory:
    rows = need(row, "messages", list)
    messages = [_read_message(message, f"message {n}") for n, message in enumerate(rows)]
    tools = read_tools(row.get("tools")) or read_tools(row.get("functions"))
    return trajectory_of(row, messages, tools, KNOWN)


def _read_message(row: Any, where: str) -> Message:
    role = need(row, "role", str, where)
    content, images = _read_content(row.get("content"), where)
    calls = row.get("tool_calls") or []
    if not isinstance(calls, list):
        need(row, "tool_calls", list, where)
    if row.get("function_call"):
        calls = [*calls, {"function": row["function_call"]}]
    thought = next((words(row, key, where) for key in THOUGHTS if row.get(key)), "")
    return Message(
        str(ROLES.get(role, role)),
        content,
        tuple(_read_call(call, f"{where}, call {n}") for n, call in enumerate(calls)),
        words(row, "tool_call_id", where),
        words(row, "name", where) if role in ("tool", "function") else "",
        thought,
        images,
    )


def _read_content(content: Any, where: str) -> tuple[str, tuple[Image, ...]]:
    if content is None or isinstance(content, str):
        return content or "", ()
    text, images = [], []
    for n, part in enumerate(need({"content": content}, "content", list, where)):
        place = f"{where}, part {n}"
        match need(part, "type", str, place):
            case "text":
                text.append(need(part, "text", str, place))
            case "image_url":
                link = need(part, "image_url", (dict, str), place)
                images.append(read_image(link if isinstance(link, str) else need(link, "url", str, place), place))
            case other:
                raise FormatError(f"{place}: content of type {other!r}; text and image_url can be read")
    return "".join(text), tuple(images)


def _read_call(row: Any, where: str) -> ToolCall:
    function = row["function"] if isinstance(row, dict) and "function" in row else row
    name = need(function, "name", str, where)
    return ToolCall(name, read_arguments(function.get("arguments"), where), words(row, "id", where))


def write(trajectory: Trajectory) -> dict[str, Any]:
    messages = [_write_message(m) for m in trajectory.messages]
    tools = [{"type": "function", "function": tool} for tool in trajectory.tools]
    return row_of(trajectory, {"messages": messages} | ({"tools": tools} if tools else {}), KNOWN)


def _write_message(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        text = [{"type": "text", "text": message.content}] if message.content else []
        images = [{"type": "image_url", "image_url": {"url": write_image(image)}} for image in message.images]
        row["content"] = text + images
    if message.thought:
        row["reasoning_content"] = message.thought
    if message.tool_calls:
        row["content"] = row["content"] or None
        row["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": write_json(c.arguments)}}
            for c in message.tool_calls
        ]
    if message.role == "tool":
        row["tool_call_id"] = message.tool_call_id
    return row
