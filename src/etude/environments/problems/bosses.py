"""Who stands above {person}: the boss, the boss of the boss, until there is none?"""

KIND = "walk"


def inputs(rng, size):
    ranks = rng.names(size + 1)
    return {"boss": dict(zip(ranks, [*ranks[1:], None], strict=True)), "person": ranks[0]}


def answer(boss: dict[str, str | None], person: str) -> list[str]:
    above = []
    while (over := boss[person]) is not None:
        above.append(person := over)
    return above
