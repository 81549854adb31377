"""Agent Data Protocol: one list of actions and observations, `details` for the rest.

Song et al. 2025, "Agent Data Protocol", arXiv:2510.24702; field names as in the released schema, versions up to 1.3.1.
A call's `description` is its thought, and what was said aloud where `reasoning_content` holds the thought. A call
without words of its own right after another action belongs to the same message. Code is a call named for its language.
Departures: a leading system message, the tools' schemas and the episode's reward go into `details`, since the schema
has no other place for them. An image that is a path stays a path: what it pointed to is not in the row.
"""

from typing import Any

from etude.core.errors import FormatError, suggest
from etude.trajectory.formats.dialogue import (
    is_code,
    need,
    read_image,
    read_tools,
    real,
    row_of,
    trajectory_of,
    words,
    write_image,
    write_json,
)
from etude.trajectory.graph import Message, ToolCall, Trajectory

VERSION = "1.3.1"
TOP = ("available_apis", "available_custom_tools", "available_code_languages")
"""Fields beside `details` that go through meta."""


def matches(row: dict[str, Any]) -> bool:
    content = row.get("content")
    return isinstance(content, list) and any(isinstance(item, dict) and "class_" in item for item in content)


def read(row: dict[str, Any]) -> Trajectory:
    need(row, "id", str)
    details = {} if row.get("details") is None else need(row, "details", dict)
    messages: list[Message] = []
    rewards: list[float | None] = []
    if isinstance(details.get("system"), str):
        messages, rewards = [Message("system", details["system"])], [None]
    waiting = 0
    before: dict[str, Any] = {}
    for n, item in enumerate(need(row, "content", list)):
        where = f"content[{n}]"
        kind = need(item, "class_", str, where)
        if kind.endswith("_action"):
            message = _read_action(item, kind, where)
            joins = _is_action(before) and message.tool_calls and not message.content and not message.thought
        else:
            message = _read_observation(item, kind, waiting, where)
            # A picture belongs to what the same source said just before.
            follows = not _is_action(before) and before.get("source") == item.get("source")
            joins = kind == "image_observation" and message.images and not message.tool_call_id and before and follows
        if joins:
            last = messages[-1]
            calls, images = last.tool_calls + message.tool_calls, last.images + message.images
            messages[-1] = Message(last.role, last.content, calls, last.tool_call_id, "", last.thought, images)
        else:
            messages.append(message)
            rewards.append(None if item.get("reward") is None else real(item, "reward", where))
        waiting += len(message.tool_calls) - (message.role == "tool" and not joins)
        before = item
    _check_offered(row.get("available_apis"), messages)
    fields = details | {key: row[key] for key in ("id", *TOP) if key in row}
    tools = details.get("tools")
    described = isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    known = ("system", "tools") if described else ("system",)
    trajectory = trajectory_of(fields, messages, read_tools(tools) if described else [], known)
    for node, reward in zip(trajectory.nodes, rewards, strict=True):
        node.reward = reward
    return trajectory


def _is_action(item: dict[str, Any]) -> bool:
    return str(item.get("class_")).endswith("_action")


def _read_action(item: dict[str, Any], kind: str, where: str) -> Message:
    said, thought = words(item, "description", where), words(item, "reasoning_content", where)
    if kind == "message_action":
        thought = "\n\n".join(filter(None, (thought, said)))
        return Message("assistant", need(item, "content", str, where), thought=thought)
    id = words(item, "tool_call_id", where)
    if kind == "api_action":
        call = ToolCall(need(item, "function", str, where), need(item, "kwargs", dict, where), id)
    elif kind == "code_action":
        call = ToolCall(need(item, "language", str, where), {"code": need(item, "content", str, where)}, id)
    else:
        raise FormatError(f"{where}: unknown class_ {kind!r}")
    return Message("assistant", said if thought else "", (call,), thought=thought or said)


def _read_observation(item: dict[str, Any], kind: str, waiting: int, where: str) -> Message:
    id, source, images = words(item, "tool_call_id", where), item.get("source", "environment"), ()
    match kind:
        case "text_observation":
            source, text = need(item, "source", str, where), need(item, "content", str, where)
        case "json_observation":
            text = write_json(need(item, "content", dict, where))
        case "image_observation":
            text = need(item, "content", str, where)
            images = (read_image(text, where),) if text.startswith("data:") else ()
            text = "" if images else text
        case "web_observation":
            page = words(item, "axtree", where) or words(item, "html", where)
            text = "\n".join(filter(None, (words(item, "url", where), page)))
            screen = item.get("image_observation")
            screen = words(screen, "content", where) if isinstance(screen, dict) else ""
            images = (read_image(screen, where),) if screen.startswith("data:") else ()
        case _:
            raise FormatError(f"{where}: unknown class_ {kind!r}")
    if source not in ("user", "agent", "environment", "system", "assistant"):
        raise FormatError(f"{where}: wrong source {source!r}")
    answers = id or (source == "environment" and waiting)
    role = "tool" if answers else "system" if source == "system" else "user"
    return Message(role, text, tool_call_id=id, images=images)


def _check_offered(apis: Any, messages: list[Message]) -> None:
    if not isinstance(apis, list) or not all(isinstance(name, str) for name in apis):
        return
    for message in messages:
        for call in message.tool_calls:
            if call.name not in apis and not is_code(call):
                raise FormatError(f"call to {call.name!r}, which is not offered; {suggest(call.name, apis)}")


def write(trajectory: Trajectory) -> dict[str, Any]:
    details = row_of(trajectory, {"tools": trajectory.tools} if trajectory.tools else {}, known=("system",))
    answered = {message.tool_call_id for message in trajectory.messages if message.role == "tool"}
    content: list[dict[str, Any]] = []
    for n, (message, node) in enumerate(zip(trajectory.messages, trajectory.nodes, strict=True)):
        if message.role == "system" and n == 0:
            details["system"] = message.content
            continue
        items = _write_actions(message, answered) if message.role == "assistant" else _write_observations(message)
        if node.reward is not None:
            items[0]["reward"] = node.reward
        content += items
    id, top = details.pop("id"), {key: details.pop(key) for key in TOP if key in details}
    return {"schema_version": VERSION, "id": id, "content": content, **top, "details": details}


def _write_actions(message: Message, answered: set[str]) -> list[dict[str, Any]]:
    if message.images:
        raise FormatError("an image by the model has no place in an ADP row")
    said, thought = message.content, message.thought
    speech = {"class_": "message_action", "content": said, "description": thought or None}
    if not message.tool_calls:
        return [speech]
    calls = []
    for call in message.tool_calls:
        item: dict[str, Any] = {"tool_call_id": call.id} if call.id in answered else {}
        if is_code(call):
            item |= {"class_": "code_action", "language": call.name, "content": call.arguments["code"]}
        else:
            item |= {"class_": "api_action", "function": call.name, "kwargs": call.arguments}
        calls.append(item | {"description": None})
    if said and not thought:
        return [speech, *calls]
    calls[0] |= {"description": said, "reasoning_content": thought} if said else {"description": thought or None}
    return calls


def _write_observations(message: Message) -> list[dict[str, Any]]:
    source = {"system": "system", "user": "user", "tool": "environment"}[message.role]
    images = [{"class_": "image_observation", "content": write_image(i), "source": source} for i in message.images]
    text = {"class_": "text_observation", "content": message.content, "name": None, "source": source}
    items = [text, *images] if message.content or not images else images
    if message.role == "tool":
        items[0] = {"tool_call_id": message.tool_call_id, **items[0]}
    return items
