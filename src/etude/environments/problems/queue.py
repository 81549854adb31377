"""Call people from the queue until there are none. Who were they?"""

KIND = "walk"
HELD_OUT = True


def inputs(rng, size):
    return {"queue": rng.names(size)}


def call_next(queue):
    """call the next person"""
    return queue.pop(0) if queue else None


def answer(queue: list[str]) -> list[str]:
    called = []
    while (person := call_next(queue)) is not None:
        called.append(person)
    return called
