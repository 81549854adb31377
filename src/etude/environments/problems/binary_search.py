"""The cards are sorted. At which position, from 0, is {card}?"""

KIND = "search"


def inputs(rng, size):
    cards = sorted(rng.sample(range(100, 1000), 2 * size + 2))
    return {"cards": cards, "card": rng.choice(cards)}


def answer(cards: list[int], card: int) -> int:
    low, high = 0, len(cards) - 1
    while low < high:
        middle = (low + high) // 2
        if cards[middle] < card:
            low = middle + 1
        else:
            high = middle
    return low
