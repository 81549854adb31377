"""At which position, from 0, does the bracket close that opens at 0?"""

KIND = "string"
HELD_OUT = True


def inputs(rng, size):
    inside, after = ("".join(rng.choice(["()", "(())"]) for _ in range(rng.randrange(1, size + 2))) for _ in range(2))
    return {"brackets": f"({inside}){after}"}


def answer(brackets: str) -> int:
    depth, at = 0, 0
    while True:
        depth += 1 if brackets[at] == "(" else -1
        if depth == 0:
            return at
        at += 1
