"""ActionStudio's standard record: a task instruction, a query, and steps of thought, calls, observation and user input.

Zhang et al. 2025, "ActionStudio", arXiv:2503.22673.
A step without calls is an answer, and its `thought` is what was said. Several results of one step are a list. The
instruction is the system message; `format` and `few_shot` stay in meta, for the harness to use or replace.
"""

from typing import Any

from etude.core.errors import FormatError
from etude.trajectory.formats.dialogue import (
    need,
    read_arguments,
    read_tools,
    row_of,
    trajectory_of,
    words,
    write_json,
)
from etude.trajectory.graph import Message, ToolCall, Trajectory

KNOWN = ("task_instruction", "tools", "query", "steps")


def matches(row: dict[str, Any]) -> bool:
    return isinstance(row.get("steps"), list) and ("query" in row or "task_instruction" in row)


def read(row: dict[str, Any]) -> Trajectory:
    messages = [Message("system", text)] if (text := words(row, "task_instruction")) else []
    messages += [Message("user", text)] if (text := words(row, "query")) else []
    for n, step in enumerate(need(row, "steps", list)):
        messages += _read_step(step, f"steps[{n}]")
    id = "trajectory_id" if "trajectory_id" in row else "unique_trajectory_id"
    return trajectory_of(row, messages, read_tools(row.get("tools")), KNOWN, id)


def _read_step(step: Any, where: str) -> list[Message]:
    thought = need(step, "thought", str, where)
    rows = need(step, "tool_calls", list, where) if step.get("tool_calls") is not None else []
    calls = tuple(
        ToolCall(need(c, "name", str, where), read_arguments(c.get("arguments"), where), words(c, "id", where))
        for c in rows
    )
    spoken = Message("assistant", tool_calls=calls, thought=thought) if calls else Message("assistant", thought)
    seen = step.get("next_observation")
    results = seen if isinstance(seen, list) and len(seen) == len(calls) else [] if seen in (None, "") else [seen]
    if calls and seen == "":  # the tool answered, with nothing
        results = [""]
    tools = [Message("tool", result if isinstance(result, str) else write_json(result)) for result in results]
    said = words(step, "user_input", where)
    return [spoken, *tools, *([Message("user", said)] if said else [])]


def write(trajectory: Trajectory) -> dict[str, Any]:
    rest = list(trajectory.messages)
    system = rest.pop(0).content if rest and rest[0].role == "system" else ""
    query = rest.pop(0).content if rest and rest[0].role == "user" else ""
    steps: list[dict[str, Any]] = []
    results: list[list[str]] = []
    for message in rest:
        step = steps[-1] if steps else None
        if message.role == "assistant":
            said = "\n".join(filter(None, (message.thought, message.content)))
            calls = [{"name": c.name, "arguments": c.arguments} for c in message.tool_calls]
            steps.append({"step_id": len(steps) + 1, "thought": said, "tool_calls": calls, "user_input": ""})
            results.append([])
        elif step is None or step["user_input"] or message.role == "system":
            raise FormatError(f"a message of role {message.role!r} has no place here in an ActionStudio row")
        elif message.role == "tool":
            results[-1].append(message.content)
        else:
            step["user_input"] = message.content
    for step, seen in zip(steps, results, strict=True):
        step["next_observation"] = seen if len(seen) > 1 else seen[0] if seen else None if step["tool_calls"] else ""
    body = {"task_instruction": system, "tools": trajectory.tools, "query": query, "steps": steps}
    harness = {"format": trajectory.meta.get("format", ""), "few_shot": trajectory.meta.get("few_shot", [])}
    return row_of(trajectory, body | harness, KNOWN, id="trajectory_id")
