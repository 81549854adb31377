"""An expert that slips: some of its calls are misspelt, and played that way.

A demonstration then fails as a real one does, late and for one wrong step; or, where the expert mends its slips, shows
an error and the recovery from it.
"""

import dataclasses
import random
from collections.abc import Sequence

from etude.trajectory import Message, ToolCall


def slips(messages: Sequence[Message], share: float, *, mend: bool, seed: str) -> list[Message]:
    """The messages of an expert, of whose calls a share is misspelt: two characters of one argument change places.

    mend: say the right call after the misspelt one, instead of going on as if nothing were wrong.
    seed: of which calls, and of the characters.

    Calls that hold no text of two different characters stay as they are.
    """
    rng = random.Random(seed)
    played: list[Message] = []
    for message in messages:
        wrong = tuple(_misspelt(call, rng) for call in message.tool_calls)
        if rng.random() >= share or wrong == message.tool_calls:
            played.append(message)
            continue
        played.append(dataclasses.replace(message, tool_calls=wrong))
        if mend:
            played.append(message)
    return played


def _misspelt(call: ToolCall, rng: random.Random) -> ToolCall:
    places = [
        (name, i)
        for name, value in call.arguments.items()
        if isinstance(value, str)
        for i in range(len(value) - 1)
        if value[i] != value[i + 1]
    ]
    if not places:
        return call
    name, i = rng.choice(places)
    value = call.arguments[name]
    swapped = f"{value[:i]}{value[i + 1]}{value[i]}{value[i + 2 :]}"
    return dataclasses.replace(call, arguments=call.arguments | {name: swapped})
