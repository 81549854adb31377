"""CodeAct: `conversations` of role and content, where an action is code between `<execute>` tags.

Wang et al. 2024, "Executable Code Actions Elicit Better LLM Agents", arXiv:2402.01030; rows as in CodeActInstruct.
Code is a call to `python` with `code`; code that is nothing but one call of a tool, by keyword and with literals, is
that call. Text before the code is the thought. A user turn that begins with `Observation:` answers the code before it.
Departures: tools are the field `tools`; the original lists them in the system message alone.
"""

import ast
import builtins
import keyword
import re
import warnings
from typing import Any

from etude.core.errors import FormatError
from etude.trajectory.formats.dialogue import is_code, need, read_tools, row_of, trajectory_of, write_json
from etude.trajectory.formats.rows import loads
from etude.trajectory.graph import Message, ToolCall, Trajectory

KNOWN = ("conversations", "tools")
EXECUTE = re.compile(r"(.*?)\n?<execute>[ ]*\n?((?:(?!</execute>).)*?)[ \n]?</execute>", re.DOTALL)
OBSERVATION = "Observation:\n"


def matches(row: dict[str, Any]) -> bool:
    turns = row.get("conversations")
    return isinstance(turns, list) and any(isinstance(t, dict) and "role" in t for t in turns)


def read(row: dict[str, Any]) -> Trajectory:
    tools = read_tools(row.get("tools"))
    messages: list[Message] = []
    for n, turn in enumerate(need(row, "conversations", list)):
        role, text = need(turn, "role", str, f"turn {n}"), need(turn, "content", str, f"turn {n}")
        action = EXECUTE.fullmatch(text.rstrip()) if role == "assistant" else None
        if role not in ("system", "user", "assistant"):
            raise FormatError(f"turn {n}: wrong role {role!r}")
        if action is not None:
            call = _read_code(action[2], {tool["name"] for tool in tools})
            messages.append(Message(role, tool_calls=(call,), thought=action[1]))
        elif role == "user" and text.startswith(OBSERVATION) and messages and messages[-1].tool_calls:
            messages.append(Message("tool", text.removeprefix(OBSERVATION)))
        else:
            messages.append(Message(role, text))
    return trajectory_of(row, messages, tools, KNOWN)


def _read_code(code: str, offered: set[str]) -> ToolCall:
    plain = ToolCall("python", {"code": code})
    try:
        with warnings.catch_warnings(action="ignore"):
            call = ast.parse(code, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            return plain
        arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if loads(write_json(arguments)) != arguments:  # a tuple, say
            return plain
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, FormatError):
        return plain
    name = call.func.id
    is_tool = name in offered if offered else not hasattr(builtins, name)
    return ToolCall(name, arguments) if is_tool and None not in [k.arg for k in call.keywords] else plain


def write(trajectory: Trajectory) -> dict[str, Any]:
    tools = {"tools": trajectory.tools} if trajectory.tools else {}
    turns = [_write_turn(message, f"message {n}") for n, message in enumerate(trajectory.messages)]
    return row_of(trajectory, {"conversations": turns} | tools, KNOWN)


def _write_turn(message: Message, where: str) -> dict[str, str]:
    if message.images or len(message.tool_calls) > 1:
        raise FormatError(f"{where}: {'images' if message.images else 'parallel calls'} have no place in a codeact row")
    if message.role == "tool":
        return {"role": "user", "content": OBSERVATION + message.content}
    text = "\n".join(filter(None, (message.thought, message.content)))
    for call in message.tool_calls:
        code = call.arguments["code"] if call.name == "python" and is_code(call) else _write_code(call, where)
        text += ("\n" if text else "") + f"<execute>\n{code}\n</execute>"
    return {"role": message.role, "content": text}


def _write_code(call: ToolCall, where: str) -> str:
    for name in (call.name, *call.arguments):
        if not name.isidentifier() or keyword.iskeyword(name):
            raise FormatError(f"{where}: {name!r} is no Python name, so the call cannot be written as code")
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
