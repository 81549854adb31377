"""Who are the mother and the father of {child}?"""

KIND = "lookup"
HELD_OUT = True


def inputs(rng, size):
    children = rng.names(size)
    return {"mother": rng.table(children), "father": rng.table(children), "child": rng.choice(children)}


def answer(mother: dict[str, str], father: dict[str, str], child: str) -> list[str]:
    return [mother[child], father[child]]
