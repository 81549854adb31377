"""What the loops share."""

import dataclasses
from collections.abc import Sequence

from etude.trajectory import Message


def noted(messages: Sequence[Message], note: str) -> list[Message]:
    """The messages that an agent is shown first, with a line added to the first request; '' adds nothing."""
    shown = list(messages)
    at = next((i for i, message in enumerate(shown) if message.role == "user"), None)
    if note and at is not None:
        shown[at] = dataclasses.replace(shown[at], content=f"{shown[at].content}\n{note}")
    return shown
