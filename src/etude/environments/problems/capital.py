"""What is the capital of {land}, and which river flows through it?"""

KIND = "lookup"


def inputs(rng, size):
    capital = rng.table(rng.names(size))
    return {"capital": capital, "river": rng.table(list(capital.values())), "land": rng.choice(list(capital))}


def answer(capital: dict[str, str], river: dict[str, str], land: str) -> list[str]:
    town = capital[land]
    return [town, river[town]]
