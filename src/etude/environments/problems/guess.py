"""Which whole number between {least} and {most} is the secret one?"""

KIND = "search"


def inputs(rng, size):
    least = rng.randrange(100, 900)
    return {"least": least, "most": least + 4 * size, "secret": least + rng.randrange(1, 4 * size)}


def try_number(secret, number: int) -> str:
    """whether the secret number is lower, higher or right"""
    return "right" if number == secret else "lower" if secret < number else "higher"


def answer(secret: int, least: int, most: int) -> int:
    return secret


def solve(call, least, most):
    low, high = least + 1, most - 1
    while True:
        number = (low + high) // 2
        told = call("try_number", number=number)
        if told == "right":
            return number
        low, high = (low, number - 1) if told == "lower" else (number + 1, high)
