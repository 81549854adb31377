"""Of the versions {oldest} to {newest}, which is the first bad one? All after it are bad, too."""

KIND = "search"


def inputs(rng, size):
    oldest = rng.randrange(100, 900)
    return {"oldest": oldest, "newest": oldest + 2 * size + 1, "broken": oldest + rng.randrange(1, 2 * size + 1)}


def works(broken, version: int) -> bool:
    """whether a version works"""
    return version < broken


def answer(broken: int, oldest: int, newest: int) -> int:
    low, high = oldest, newest
    while low < high:
        middle = (low + high) // 2
        if works(broken, middle):
            low = middle + 1
        else:
            high = middle
    return low
