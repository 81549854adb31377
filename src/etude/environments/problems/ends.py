"""How many guests stand in the row, and who is the first?"""

KIND = "walk"


def inputs(rng, size):
    return {"row": rng.names(size)}


def answer(row: list[str]) -> list:
    return [len(row), row[0]]
