"""Tools and calls as text, for chat templates that know nothing of tools.

The fallback, in the notation of the Hermes function-calling models: the system message ends with one line per tool (a
typed signature and what it does); a call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` in the
assistant's text; results come back as user messages, each a `<tool_response>` block. One signature line costs a fifth
of the tokens of the same tool's JSON schema, which matters to a small model on a CPU.
"""

import json
from collections.abc import Sequence
from typing import Any

from etude.trajectory import Message, ToolCall

INSTRUCTION = 'To use a tool, write <tool_call>{"name": "...", "arguments": {...}}</tool_call>. Tools:'
TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}


def signature(tool: dict[str, Any]) -> str:
    """One line for one tool.

    >>> signature({"name": "cancel", "description": "Cancel an order.", "parameters": {"type": "object",
    ...   "properties": {"id": {"type": "string"}, "fee": {"type": "number"}}, "required": ["id"]}})
    'cancel(id: str, fee: float = ...): Cancel an order.'
    """
    parameters = tool.get("parameters") or {}
    required = parameters.get("required", [])
    arguments = ", ".join(
        f"{name}: {_type(schema)}" + ("" if name in required else " = ...")
        for name, schema in parameters.get("properties", {}).items()
    )
    described = [
        f"  {name}: {schema['description']}"
        for name, schema in parameters.get("properties", {}).items()
        if schema.get("description")
    ]
    return "\n".join([f"{tool['name']}({arguments}): {tool.get('description', '')}".rstrip(": "), *described])


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    names = [TYPES.get(k, str(k)) for k in kinds]
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list[{_type(schema['items'])}]"
    if kind == "object" and schema.get("properties"):
        return "{" + ", ".join(f"{k}: {_type(v)}" for k, v in schema["properties"].items()) + "}"
    return " | ".join(names)


def call_text(call: ToolCall) -> str:
    """A call as the assistant writes it; an argument that holds a closing tag does not end the call."""
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False).replace("</", "<\\/")
    return f"<tool_call>{body}</tool_call>"


def as_plain_chat(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The dialogue with roles system, user and assistant only, tools and calls written out as text."""
    chat: list[dict[str, str]] = []
    if tools:
        block = "\n".join([INSTRUCTION, *map(signature, tools)])
        first = messages[0].content if messages and messages[0].role == "system" else ""
        chat.append({"role": "system", "content": f"{first}\n{block}".lstrip("\n")})
        messages = messages[1:] if messages and messages[0].role == "system" else messages
    for message in messages:
        if message.role == "tool":
            chat.append({"role": "user", "content": f"<tool_response>{message.content}</tool_response>"})
        else:
            calls = [call_text(call) for call in message.tool_calls]
            chat.append({"role": message.role, "content": "\n".join(filter(None, [message.content, *calls]))})
    return chat
