"""How many temperatures has the longest rising selection, in their order?"""

KIND = "dp"


def inputs(rng, size):
    return {"temperatures": rng.sample(range(100, 400), size + 1)}


def answer(temperatures: list[int]) -> int:
    values = [temperatures[i] for i in range(len(temperatures))]
    longest = list[int]()
    for i, value in enumerate(values):
        longest.append(1 + max((n for n, before in zip(longest, values[:i], strict=True) if before < value), default=0))
    return max(longest)
