"""Which rooms come after {room}, until there is none?"""

KIND = "walk"
HELD_OUT = True


def inputs(rng, size):
    rooms = rng.names(size + 1)
    return {"beyond": dict(zip(rooms, [*rooms[1:], None], strict=True)), "room": rooms[0]}


def answer(beyond: dict[str, str | None], room: str) -> list[str]:
    passed = []
    while (after := beyond[room]) is not None:
        passed.append(room := after)
    return passed
