"""How many groups of friends are there among {people}?"""

KIND = "graph"


def inputs(rng, size):
    people = rng.names(size + 1)
    friends = {person: list[str]() for person in people}
    for _ in range(size - 1):
        a, b = rng.sample(people, 2)
        if b not in friends[a]:
            friends[a].append(b)
            friends[b].append(a)
    return {"friends": friends, "people": people}


def answer(friends: dict[str, list[str]], people: list[str]) -> int:
    seen, groups = set[str](), 0
    for person in people:
        groups += person not in seen
        waiting = [person]
        while waiting:
            if (one := waiting.pop()) not in seen:
                seen.add(one)
                waiting += friends[one]
    return groups
