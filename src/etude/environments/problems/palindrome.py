"""How many letters must be changed so that the name reads the same backwards?"""

KIND = "string"


def inputs(rng, size):
    return {"name": "".join(rng.choice("abcd") for _ in range(size + 2))}


def answer(name: str) -> int:
    n = len(name)
    return sum(name[i] != name[n - 1 - i] for i in range(n // 2))
