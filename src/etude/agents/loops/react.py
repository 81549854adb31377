"""ReAct: thought, action and observation as plain text, for any model, with or without tool calling.

Yao et al. 2023, "ReAct: Synergizing Reasoning and Acting in Language Models", arXiv:2210.03629: the model writes
`Thought: ... Action: tool[arguments]`, the loop answers `Observation: ...`, and `finish[answer]` ends the episode.
Departures: arguments are a JSON object (`get[{"id": "A1"}]`) so that tools with several arguments fit; a lone value is
taken as the only argument; observations come as user messages, because chat models are trained on turns.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from etude.core.parts import part
from etude.protocols import Observation, Run
from etude.trajectory import Message, ToolCall

STOP = "Observation:"  # what follows is the world's to say
ACTION = re.compile(r"Action:\s*([\w.-]+)\[(.*?)\]\s*(?=\n|$)", re.DOTALL)
INSTRUCTION = """Solve the task in steps. Write
Thought: what you think
Action: tool[{"argument": "value"}]
and wait for the observation. When you are done, write Action: finish[your answer]. Tools:"""


@part
@dataclass(frozen=True)
class react:
    """The text loop."""

    async def __call__(self, run: Run, first: Observation) -> None:
        tools, run.tools = run.tools, []  # described in the text, not through the template
        run.observe(*_instructed(first.messages, tools))
        while not run.over:
            action = await run.act(stop=(STOP,))
            message, problem = read(action.message.content, tools)
            if problem:
                run.observe(Message("user", f"Observation: error: {problem}"))
                continue
            step = await run.step(message)
            if not step.done:
                results = [m.content for m in step.observation.messages]
                run.observe(*(Message("user", f"Observation: {text}") for text in results))


def _instructed(messages: tuple[Message, ...], tools: list[dict[str, Any]]) -> list[Message]:
    lines = [f"- {t['name']}({', '.join(_properties(t))}): {t.get('description', '')}" for t in tools]
    block = "\n".join([INSTRUCTION, *lines])
    if messages and messages[0].role == "system":
        return [Message("system", f"{messages[0].content}\n{block}"), *messages[1:]]
    return [Message("system", block), *messages]


def _properties(tool: dict[str, Any]) -> list[str]:
    return list((tool.get("parameters") or {}).get("properties", {}))


def read(text: str, tools: list[dict[str, Any]]) -> tuple[Message, str]:
    """The message that a turn's last action stands for, and what is wrong with it ('' if nothing).

    >>> read('Thought: look it up.\\nAction: get[{"id": "A1"}]', [{"name": "get"}])[0].tool_calls[0].arguments
    {'id': 'A1'}
    >>> read("Action: finish[Paris]", [])[0].content
    'Paris'
    """
    found = list(ACTION.finditer(text))
    if not found:
        return Message("assistant", text), "no action; write  Action: tool[{...}]  or  Action: finish[answer]"
    name, body = found[-1][1], found[-1][2].strip()
    if name == "finish":
        return Message("assistant", body), ""
    tool = next((t for t in tools if t["name"] == name), None)
    try:
        arguments = json.loads(body or "{}")
    except (ValueError, RecursionError):
        arguments = body
    if not isinstance(arguments, dict):
        names = _properties(tool) if tool else []
        if len(names) != 1:
            form = f'{name}[{{"argument": ...}}]'
            return Message("assistant", text), f"the arguments of {name} must be a JSON object: {form}"
        arguments = {names[0]: arguments}
    thought = text[: found[-1].start()].removeprefix("Thought:").strip()
    return Message("assistant", thought, (ToolCall(name, arguments, id="call_1"),)), ""
