"""Who coaches the team {team}, and in which town was that coach born?"""

KIND = "lookup"
HELD_OUT = True


def inputs(rng, size):
    coach = rng.table(rng.names(size))
    return {"coach": coach, "birthplace": rng.table(list(coach.values())), "team": rng.choice(list(coach))}


def answer(coach: dict[str, str], birthplace: dict[str, str], team: str) -> list[str]:
    who = coach[team]
    return [who, birthplace[who]]
