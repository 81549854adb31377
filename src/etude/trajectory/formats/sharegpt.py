"""ShareGPT's `conversations` of `from` and `value`, with tools as LLaMA-Factory and Hermes write them.

A turn that only calls is `function_call`, a JSON object or a list of them. A turn that speaks and calls is `gpt` with
`<tool_call>` blocks; a thought stands before either in `<think>`. `tools` is JSON text. The sides must alternate: a
person or tool results, then the model; only tool results may follow each other.
"""

import re
from typing import Any

from etude.core.errors import FormatError
from etude.trajectory.formats.dialogue import (
    need,
    read_arguments,
    read_tools,
    row_of,
    trajectory_of,
    write_json,
)
from etude.trajectory.formats.rows import loads
from etude.trajectory.graph import Message, ToolCall, Trajectory

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
KNOWN = ("conversations", "tools", "system")
THINK = re.compile(r"<think>\n?(.*?)\n?</think>\n*", re.DOTALL)
CALL = re.compile(r"\n?<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
RESULT = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>", re.DOTALL)


def matches(row: dict[str, Any]) -> bool:
    turns = row.get("conversations")
    return isinstance(turns, list) and any(isinstance(t, dict) and "from" in t for t in turns)


def read(row: dict[str, Any]) -> Trajectory:
    messages: list[Message] = []
    if isinstance(row.get("system"), str) and row["system"]:
        messages.append(Message("system", row["system"]))
    for n, turn in enumerate(need(row, "conversations", list)):
        message = _read_turn(turn, f"turn {n}")
        _check_order(messages, message, n)
        messages.append(message)
    return trajectory_of(row, messages, read_tools(row.get("tools")), KNOWN)


def _check_order(before: list[Message], message: Message, n: int) -> None:
    last = before[-1].role if before else "system"
    allowed = {
        "system": not before,
        "user": last in ("system", "assistant"),
        "assistant": last in ("user", "tool"),
        "tool": last in ("assistant", "tool"),
    }[message.role]
    if not allowed:
        place = f"after {last!r}" if before else "at the beginning"
        raise FormatError(f"turn {n}: roles out of order, {message.role!r} {place}")


def _read_turn(turn: Any, where: str) -> Message:
    tag, value = need(turn, "from", str, where), need(turn, "value", str, where)
    if tag not in ROLES:
        raise FormatError(f"{where}: wrong role {tag!r}")
    role = ROLES[tag]
    if role == "tool":
        wrapped = RESULT.fullmatch(value)
        return Message(role, wrapped[1] if wrapped else value)
    if role != "assistant":
        return Message(role, value)
    thought = THINK.match(value)
    text = value[thought.end() :] if thought else value
    if tag == "function_call":
        calls, text = _read_calls(text, where), ""
    else:
        calls = [call for block in CALL.findall(text) for call in _read_calls(block, where)]
        text = CALL.sub("", text)
    return Message(role, text, tuple(calls), thought=thought[1] if thought else "")


def _read_calls(text: str, where: str) -> list[ToolCall]:
    try:
        value = loads(text)
    except FormatError as error:
        raise FormatError(f"{where}: the call is {error}") from None
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise FormatError(f"{where}: a list of no calls")
    return [
        ToolCall(need(call, "name", str, where), read_arguments(call.get("arguments", call.get("parameters")), where))
        for call in calls
    ]


def write(trajectory: Trajectory) -> dict[str, Any]:
    for n, message in enumerate(trajectory.messages):
        if message.images:
            raise FormatError(f"message {n}: images have no place in a sharegpt row")
    tools = {"tools": write_json(trajectory.tools)} if trajectory.tools else {}
    return row_of(trajectory, {"conversations": [_write_turn(m) for m in trajectory.messages]} | tools, KNOWN)


def _write_turn(message: Message) -> dict[str, str]:
    if message.role != "assistant":
        tags = {"system": "system", "user": "human", "tool": "observation"}
        return {"from": tags[message.role], "value": message.content}
    thought = f"<think>\n{message.thought}\n</think>\n\n" if message.thought else ""
    calls = [{"name": c.name, "arguments": c.arguments} for c in message.tool_calls]
    if calls and not message.content:
        return {"from": "function_call", "value": thought + write_json(calls if len(calls) > 1 else calls[0])}
    blocks = "".join(f"\n<tool_call>\n{write_json(call)}\n</tool_call>" for call in calls)
    return {"from": "gpt", "value": thought + message.content + blocks}
