"""A sorted wheel was turned. At which position, from 0, is its smallest number now?"""

KIND = "search"
HELD_OUT = True


def inputs(rng, size):
    wheel = sorted(rng.sample(range(100, 1000), size + 3))
    at = rng.randrange(1, len(wheel))
    return {"wheel": wheel[at:] + wheel[:at]}


def answer(wheel: list[int]) -> int:
    low, high = 0, len(wheel) - 1
    while low < high:
        middle = (low + high) // 2
        if wheel[middle] > wheel[high]:
            low = middle + 1
        else:
            high = middle
    return low
