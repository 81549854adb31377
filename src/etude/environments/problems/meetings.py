"""How many of the meetings can be attended, one after the other?"""

KIND = "greedy"


def inputs(rng, size):
    starts = [rng.randrange(8, 18) for _ in range(size)]
    return {"meetings": [[start, start + rng.randrange(1, 5)] for start in starts]}


def meeting(meetings, number: int):
    """hours at which a meeting begins and ends, by its number from 0"""
    return meetings[range(len(meetings))[number] if number >= 0 else len(meetings)]


def answer(meetings: list[list[int]]) -> int:
    attended, free = 0, 0
    for begins, ends in sorted([meeting(meetings, n) for n in range(len(meetings))], key=lambda hours: hours[1]):
        if begins >= free:
            attended, free = attended + 1, ends
    return attended
