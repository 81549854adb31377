"""How long is the longest run of equal signs?"""

KIND = "string"


def inputs(rng, size):
    return {"signs": "".join(rng.choice("+-*/") for _ in range(size + 3))}


def answer(signs: str) -> int:
    longest, run, before = 0, 0, ""
    for i in range(len(signs)):
        sign = signs[i]
        run = run + 1 if sign == before else 1
        longest, before = max(longest, run), sign
    return longest
