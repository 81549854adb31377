"""What is the largest sum of neighbouring gains?

Kadane's algorithm.
"""

KIND = "array"


def inputs(rng, size):
    return {"gains": [rng.choice([-1, 1]) * rng.randrange(10, 100) for _ in range(size + 1)]}


def answer(gains: list[int]) -> int:
    best = here = gains[0]
    for i in range(1, len(gains)):
        gain = gains[i]
        here = max(gain, here + gain)
        best = max(best, here)
    return best
