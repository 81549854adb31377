"""What is the most that can be taken from the houses, never from two neighbours?"""

KIND = "dp"


def inputs(rng, size):
    return {"houses": [rng.randrange(10, 100) for _ in range(size + 1)]}


def answer(houses: list[int]) -> int:
    with_last = without = 0
    for i in range(len(houses)):
        with_last, without = without + houses[i], max(with_last, without)
    return max(with_last, without)
