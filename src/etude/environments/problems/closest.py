"""How long is the shortest way from {origin} to {target}?

Dijkstra's algorithm.
"""

KIND = "graph"
HELD_OUT = True


def inputs(rng, size):
    ports = rng.names(size + 1)
    sea = {port: dict[str, int]() for port in ports}
    for n, port in enumerate(ports[1:], 1):
        for other in rng.sample(ports[:n], min(n, 2)):
            sea[port][other] = sea[other][port] = rng.randrange(10, 100)
    return {"sea": sea, "origin": ports[0], "target": ports[-1]}


def neighbours(sea, port: str):
    """ports that can be reached from a port"""
    return list(sea[port])


def miles(sea, port: str, other: str):
    """miles between two ports that are neighbours"""
    return sea[port][other]


def answer(sea: dict[str, dict[str, int]], origin: str, target: str) -> int:
    far, done = {origin: 0}, set[str]()
    while True:
        port = min((p for p in far if p not in done), key=lambda p: far[p])
        if port == target:
            return far[port]
        done.add(port)
        for other in neighbours(sea, port):
            if other not in done:
                far[other] = min(far.get(other, 10**9), far[port] + miles(sea, port, other))
