"""Which stops come after {stop}, until there is none?"""

KIND = "walk"


def inputs(rng, size):
    line = rng.names(size + 1)
    return {"following": dict(zip(line, [*line[1:], None], strict=True)), "stop": line[0]}


def answer(following: dict[str, str | None], stop: str) -> list[str]:
    passed = []
    while (after := following[stop]) is not None:
        passed.append(stop := after)
    return passed
