"""In which order can {dishes} be cooked? Of those that are ready, always take the one that is named first."""

KIND = "graph"


def inputs(rng, size):
    dishes = rng.names(size)
    needs = {dish: sorted(rng.sample(dishes[:n], rng.randrange(min(n, 2) + 1))) for n, dish in enumerate(dishes)}
    return {"needs": needs, "dishes": rng.sample(dishes, size)}


def answer(needs: dict[str, list[str]], dishes: list[str]) -> list[str]:
    waiting = {dish: needs[dish] for dish in dishes}
    cooked = []
    while waiting:
        ready = next(dish for dish, first in waiting.items() if set(first) <= set(cooked))
        cooked.append(ready)
        del waiting[ready]
    return cooked
