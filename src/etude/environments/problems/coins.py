"""With how few coins can {amount} be paid? There are enough of each."""

KIND = "dp"


def inputs(rng, size):
    return {"coins": [1, *rng.sample(range(3, 10), 2)], "amount": rng.randrange(10, 10 + 4 * size)}


def answer(coins: list[int], amount: int) -> int:
    values = [coins[i] for i in range(len(coins))]
    fewest = [0]
    for due in range(1, amount + 1):
        fewest.append(1 + min(fewest[due - value] for value in values if value <= due))
    return fewest[amount]
