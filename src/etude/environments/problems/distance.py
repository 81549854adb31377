"""How many letters must be changed, added or left out to make the new text of the old text?

Levenshtein's distance.
"""

KIND = "dp"


def inputs(rng, size):
    old, new = ("".join(rng.choice("abc") for _ in range(rng.randrange(2, size + 2))) for _ in range(2))
    return {"old": old, "new": new}


def answer(old: str, new: str) -> int:
    theirs = [new[j] for j in range(len(new))]
    row = list(range(len(theirs) + 1))
    for i in range(len(old)):
        letter, above = old[i], row
        row = [i + 1]
        for j, other in enumerate(theirs):
            row.append(min(row[-1] + 1, above[j + 1] + 1, above[j] + (letter != other)))
    return row[-1]
