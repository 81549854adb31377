"""At which position, from 0, is the first letter that occurs only once?"""

KIND = "string"


def inputs(rng, size):
    pairs = [rng.choice("abcdef") for _ in range(size)]
    letters = [*pairs, *pairs]
    rng.shuffle(letters)
    letters.insert(rng.randrange(1, len(letters)), "z")
    return {"letters": "".join(letters)}


def answer(letters: str) -> int:
    read = [letters[i] for i in range(len(letters))]
    return next(i for i, letter in enumerate(read) if read.count(letter) == 1)
