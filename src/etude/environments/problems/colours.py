"""What colours have {birds}, in that order?"""

KIND = "lookup"


def inputs(rng, size):
    names = rng.names(size + 1)
    paints = ["red", "blue", "green", "white", "black", "gold"]
    return {"colour": {name: rng.choice(paints) for name in names}, "birds": rng.sample(names, size)}


def answer(colour: dict[str, str], birds: list[str]) -> list[str]:
    return [colour[bird] for bird in birds]
