"""What do {goods} cost, in that order?"""

KIND = "lookup"


def inputs(rng, size):
    names = rng.names(size + 1)
    return {"price": {name: rng.randrange(10, 100) for name in names}, "goods": rng.sample(names, size)}


def answer(price: dict[str, int], goods: list[str]) -> list[int]:
    return [price[name] for name in goods]
