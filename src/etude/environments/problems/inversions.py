"""How many pairs of marks stand the wrong way round, a larger one before a smaller one?"""

KIND = "array"


def inputs(rng, size):
    return {"marks": rng.sample(range(100, 1000), size + 1)}


def compare(marks, i: int, j: int) -> str:
    """compare the marks at two positions, from 0"""
    return "less" if marks[i] < marks[j] else "more" if marks[i] > marks[j] else "equal"


def answer(marks: list[int]) -> int:
    n = len(marks)
    return sum(compare(marks, i, j) == "more" for i in range(n) for j in range(i + 1, n))
