"""Sort the discs by swapping neighbours. How many swaps does it take?"""

KIND = "array"


def inputs(rng, size):
    return {"discs": rng.sample(range(100, 1000), size)}


def order(discs, i: int) -> bool:
    """put the discs at i and i + 1 in order; whether they had to be swapped"""
    if i < 0:
        raise IndexError("positions start at 0")
    swapped = discs[i] > discs[i + 1]
    if swapped:
        discs[i], discs[i + 1] = discs[i + 1], discs[i]
    return swapped


def answer(discs: list[int]) -> int:
    n = len(discs)
    return sum(order(discs, i) for last in range(n - 1, 0, -1) for i in range(last))
