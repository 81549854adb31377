"""Who owns the ship {ship}, and where does that owner live?"""

KIND = "lookup"


def inputs(rng, size):
    owner = rng.table(rng.names(size))
    return {"owner": owner, "home": rng.table(list(owner.values())), "ship": rng.choice(list(owner))}


def answer(owner: dict[str, str], home: dict[str, str], ship: str) -> list[str]:
    who = owner[ship]
    return [who, home[who]]
