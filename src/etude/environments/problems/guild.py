"""Which guild is {person} in, and who leads it?"""

KIND = "lookup"


def inputs(rng, size):
    guild = rng.table(rng.names(size))
    return {"guild": guild, "leader": rng.table(list(guild.values())), "person": rng.choice(list(guild))}


def answer(guild: dict[str, str], leader: dict[str, str], person: str) -> list[str]:
    which = guild[person]
    return [which, leader[which]]
