"""Buy once and sell once later: what is the largest profit?"""

KIND = "array"


def inputs(rng, size):
    return {"quotes": rng.sample(range(100, 1000), size + 1)}


def answer(quotes: list[int]) -> int:
    lowest, profit = quotes[0], 0
    for day in range(1, len(quotes)):
        quote = quotes[day]
        profit = max(profit, quote - lowest)
        lowest = min(lowest, quote)
    return profit
