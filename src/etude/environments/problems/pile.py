"""Take cards from the pile until there are none. Which were they?"""

KIND = "walk"


def inputs(rng, size):
    return {"pile": rng.names(size)}


def take(pile):
    """take the top card"""
    return pile.pop() if pile else None


def answer(pile: list[str]) -> list[str]:
    taken = []
    while (card := take(pile)) is not None:
        taken.append(card)
    return taken
