"""At which position, from 0, is the largest number?"""

KIND = "array"


def inputs(rng, size):
    return {"numbers": rng.sample(range(100, 1000), size + 1)}


def answer(numbers: list[int]) -> int:
    best = 0
    largest = numbers[0]
    for i in range(1, len(numbers)):
        if (number := numbers[i]) > largest:
            best, largest = i, number
    return best
