"""A decision put to a judge: what happened up to it, line by line, and a question that one of two words answers.

A judge must be asked as it was taught. So worlds that make its lessons and the scorer that asks it share this file.
"""

from collections.abc import Sequence

from etude.trajectory import Message

QUESTION, YES, NO = "Accept?", "accepted", "rejected"
EVENTS = 1


def question(dialogue: Sequence[Message], ask: str = QUESTION, events: int = EVENTS) -> str:
    """The last events and what the agent did at each, its last deed, which is judged, and the question.

    dialogue: ends with the agent's deed. events: most messages of others that are read, the system's never.

    A deed begins with `>`. Whatever the agent wrote stays on its line, so that it cannot pass for an event.

    >>> from etude.trajectory import ToolCall
    >>> offer = Message("assistant", "", (ToolCall("propose", {"task": "fix it"}),))
    >>> print(question([Message("user", "open"), offer, Message("tool", "no"), Message("tool", "fail"), offer]))
    fail
    > propose fix it
    Accept?
    """
    told = [n for n, message in enumerate(dialogue) if message.role not in ("system", "assistant")]
    begin = told[-events:][0] if told else 0
    lines = [did(m) if m.role == "assistant" else m.content for m in dialogue[begin:] if m.role != "system"]
    return "\n".join([*lines, ask])


def did(message: Message) -> str:
    """What the agent did, on one line: its calls with the values of their arguments, or else what it said."""
    calls = [" ".join([call.name, *map(str, call.arguments.values())]) for call in message.tool_calls]
    return "> " + " ".join((" and ".join(calls) or message.content).split())
