"""What are the things worth that fit into a bag for {limit} kilos, at best?"""

KIND = "dp"
HELD_OUT = True


def inputs(rng, size):
    things = [[rng.randrange(2, 9), rng.randrange(10, 100)] for _ in range(size)]
    return {"things": things, "limit": rng.randrange(6, 12)}


def thing(things, number: int):
    """kilos and worth of a thing, by its number from 0"""
    return things[range(len(things))[number] if number >= 0 else len(things)]


def answer(things: list[list[int]], limit: int) -> int:
    best = [0] * (limit + 1)
    for number in range(len(things)):
        kilos, worth = thing(things, number)
        for room in range(limit, kilos - 1, -1):
            best[room] = max(best[room], best[room - kilos] + worth)
    return best[limit]
