"""How many letters have the first word and the second word in common at their beginning?"""

KIND = "string"


def inputs(rng, size):
    common = [rng.choice("abcde") for _ in range(rng.randrange(1, size + 1))]
    rests = ["".join(rng.choice("fghij"[i::2]) for _ in range(3)) for i in range(2)]
    return {"first": "".join(common) + rests[0], "second": "".join(common) + rests[1]}


def answer(first: str, second: str) -> int:
    i = 0
    while first[i] == second[i]:
        i += 1
    return i
