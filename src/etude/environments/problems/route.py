"""What is the shortest way from {start} to {goal}? Name all towns on it, both ends too."""

KIND = "graph"


def inputs(rng, size):
    towns = rng.names(size + 2)
    roads = {town: list[str]() for town in towns}
    for n, town in enumerate(towns[1:], 1):  # a tree, so that there is one way
        other = rng.choice(towns[max(0, n - 2) : n])
        roads[town].append(other)
        roads[other].append(town)
    return {"roads": roads, "start": towns[0], "goal": rng.choice(towns[2:])}


def answer(roads: dict[str, list[str]], start: str, goal: str) -> list[str]:
    ways = [[start]]
    while True:
        way = ways.pop(0)
        if way[-1] == goal:
            return way
        ways += [[*way, town] for town in roads[way[-1]] if town not in way]
