"""How many levels has the family tree below and with {root}?"""

KIND = "graph"


def inputs(rng, size):
    people = rng.names(size + 1)
    children = {person: list[str]() for person in people}
    for n, person in enumerate(people[1:], 1):
        children[rng.choice(people[:n])].append(person)
    return {"children": children, "root": people[0]}


def answer(children: dict[str, list[str]], root: str) -> int:
    level, depth = [root], 0
    while level:
        depth += 1
        level = [child for person in level for child in children[person]]
    return depth
