"""How heavy are {animals}, in that order?"""

KIND = "lookup"
HELD_OUT = True


def inputs(rng, size):
    names = rng.names(size + 1)
    return {"weight": {name: rng.randrange(10, 100) for name in names}, "animals": rng.sample(names, size)}


def answer(weight: dict[str, int], animals: list[str]) -> list[int]:
    return [weight[name] for name in animals]
