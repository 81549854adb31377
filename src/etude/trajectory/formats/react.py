"""ReAct text in FireAct's one format: `instruction`, and an `output` of Thought, Action and Observation lines.

Yao et al. 2023, "ReAct", arXiv:2210.03629; Chen et al. 2023, "FireAct", arXiv:2310.05915.
`Action: name[text]` gives the tool's first parameter, or `input` where no tools are listed; `name[{…}]` gives several.
`finish[answer]` ends with an answer: alone it is a chain of thought. The observation after it holds the reward. Text
before the first label is the end of the question, as in FireAct's multiple-choice rows.
Departures: a system message is the field `system`, and tools are the field `tools`.
"""

import re
from typing import Any

from etude.core.errors import FormatError
from etude.trajectory.formats.dialogue import (
    CODE_LANGUAGES,
    need,
    read_tools,
    row_of,
    trajectory_of,
    words,
    write_json,
)
from etude.trajectory.formats.rows import loads
from etude.trajectory.graph import Message, ToolCall, Trajectory

KNOWN = ("instruction", "input", "output", "system", "tools")
LINE = re.compile(r"^(Thought|Action|Observation)(?: \d+)?:[ ]?", re.MULTILINE)
ACTION = re.compile(r"([\w.\-]+)\[(.*)\]", re.DOTALL)
FINISHED = re.compile(r"Episode finished, reward = (True|False|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def matches(row: dict[str, Any]) -> bool:
    output = row.get("output")
    return isinstance(row.get("instruction"), str) and isinstance(output, str) and LINE.search(output) is not None


def read(row: dict[str, Any]) -> Trajectory:
    tools = read_tools(row.get("tools"))
    messages = [Message("system", text)] if (text := words(row, "system")) else []
    before, *pieces = LINE.split(need(row, "output", str))
    if not pieces:
        raise FormatError(f"the output has no line Thought: or Action:, but {before[:40]!r}")
    question = (need(row, "instruction", str), words(row, "input"), before.strip())
    messages.append(Message("user", "\n".join(filter(None, question))))
    thoughts: list[str] = []
    reward = None
    for label, text in zip(pieces[::2], (p.removesuffix("\n") for p in pieces[1::2]), strict=True):
        finished = messages[-1].role == "assistant" and not messages[-1].tool_calls
        if label == "Observation" and finished:
            reward = _read_reward(text) if reward is None else reward
        elif finished or (label == "Observation" and (messages[-1].role != "assistant" or thoughts)):
            raise FormatError(f"roles out of order: {label} after {'finish' if finished else 'no action'}")
        elif label == "Thought":
            thoughts.append(text)
        elif label == "Observation":
            messages.append(Message("tool", text))
        else:
            messages.append(_read_action(text, "\n".join(thoughts), tools))
            thoughts = []
    if thoughts:
        raise FormatError("the last thought leads to no action")
    fields = row if reward is None or "reward" in row else row | {"reward": reward}
    return trajectory_of(fields, messages, tools, KNOWN)


def _read_reward(text: str) -> float | None:
    finished = FINISHED.fullmatch(text)
    return None if finished is None else float({"True": 1, "False": 0}.get(finished[1], finished[1]))


def _read_action(text: str, thought: str, tools: list[dict[str, Any]]) -> Message:
    action = ACTION.fullmatch(text.strip())
    if action is None:
        raise FormatError(f"the action {text.strip()[:60]!r} is not of the form name[argument]")
    name, argument = action.groups()
    if name.lower() == "finish" and not any(tool["name"] == name for tool in tools):
        return Message("assistant", argument, thought=thought)
    return Message("assistant", tool_calls=(ToolCall(name, _read_argument(name, argument, tools)),), thought=thought)


def _read_argument(name: str, argument: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    if argument.startswith("{"):
        try:
            value = loads(argument)
        except FormatError:
            value = None
        if isinstance(value, dict):
            return value
    return {_parameter(name, tools): argument}


def _parameter(name: str, tools: list[dict[str, Any]]) -> str:
    """The parameter that bare text stands for."""
    for tool in tools:
        schema = tool.get("parameters")
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if tool["name"] == name and isinstance(properties, dict) and properties:
            return next(iter(properties))
    return "code" if name in CODE_LANGUAGES else "input"


def write(trajectory: Trajectory) -> dict[str, Any]:
    rest = list(trajectory.messages)
    system = {"system": rest.pop(0).content} if rest and rest[0].role == "system" else {}
    question = rest.pop(0).content if rest and rest[0].role == "user" else ""
    lines = []
    for message in rest:
        if message.role in ("system", "user"):
            raise FormatError(f"a further message of role {message.role!r} has no place in a react row")
        if message.images or len(message.tool_calls) > 1:
            raise FormatError(f"{'images' if message.images else 'parallel calls'} have no place in a react row")
        if message.role == "tool":
            lines.append(f"Observation: {message.content}")
            continue
        said = [message.thought, message.content] if message.tool_calls else [message.thought]
        if thought := "\n".join(filter(None, said)):
            lines.append(f"Thought: {thought}")
        action = _write_call(message.tool_calls[0], trajectory.tools) if message.tool_calls else None
        lines.append(f"Action: {action or f'finish[{message.content}]'}")
    row = row_of(trajectory, {}, KNOWN)
    if rest and rest[-1].role == "assistant" and not rest[-1].tool_calls and "reward" in row:
        last = f"Episode finished, reward = {row['reward']:g}"
        if _read_reward(last) == row["reward"]:
            lines.append(f"Observation: {last}")
            del row["reward"]
    tools = {"tools": trajectory.tools} if trajectory.tools else {}
    return row | system | {"instruction": question, "input": "", "output": "\n".join(lines)} | tools


def _write_call(call: ToolCall, tools: list[dict[str, Any]]) -> str:
    bare = call.arguments.get(_parameter(call.name, tools))
    if isinstance(bare, str) and _read_argument(call.name, bare, tools) == call.arguments:
        return f"{call.name}[{bare}]"
    return f"{call.name}[{write_json(call.arguments)}]"
