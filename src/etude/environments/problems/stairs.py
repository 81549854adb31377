"""Each step has a toll; one may go up one or two steps at a time, first onto step 0 or 1. How cheap is the way past the
last?"""

KIND = "dp"


def inputs(rng, size):
    return {"tolls": [rng.randrange(10, 100) for _ in range(size + 1)]}


def answer(tolls: list[int]) -> int:
    before, here = 0, 0
    for i in range(len(tolls)):
        before, here = here, min(before, here) + tolls[i]
    return min(before, here)
