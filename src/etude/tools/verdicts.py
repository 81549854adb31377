"""A decision put to a judge: what happened up to it, line by line, and a question that one of two words answers.

A judge must be asked as it was taught. So worlds that make its lessons and the scorer that asks it share this file.
"""

from collections.abc import Sequence

from etude.trajectory import Message

QUESTION, YES, NO = "Accepted or rejected?", "accepted", "rejected"


def question(dialogue: Sequence[Message], ask: str = QUESTION) -> str:
    """Everything but the system's words; what the agent did begins with `>`, and its last deed is what is judged.

    Whatever the agent wrote stays on its line, so that it cannot pass for an event.

    >>> from etude.trajectory import ToolCall
    >>> print(question([Message("user", "tests fail"), Message("assistant", "", (ToolCall("propose", {"task": "fix"}),))]))
    tests fail
    > propose fix
    Accepted or rejected?
    """
    lines = [did(m) if m.role == "assistant" else m.content for m in dialogue if m.role != "system"]
    return "\n".join([*lines, ask])


def did(message: Message) -> str:
    """What the agent did, on one line: its calls with the values of their arguments, or else what it said."""
    calls = [" ".join([call.name, *map(str, call.arguments.values())]) for call in message.tool_calls]
    return "> " + " ".join((" and ".join(calls) or message.content).split())
