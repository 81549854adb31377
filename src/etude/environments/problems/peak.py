"""At which position, from 0, is the summit? The levels rise up to it and then fall."""

KIND = "search"


def inputs(rng, size):
    levels = sorted(rng.sample(range(100, 1000), size + 3))
    at = rng.randrange(1, size + 1)
    return {"levels": [*levels[:at], levels[-1], *levels[at:-1][::-1]]}


def answer(levels: list[int]) -> int:
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if levels[middle] < levels[middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
