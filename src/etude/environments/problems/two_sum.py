"""Which two positions, from 0, hold heights with the sum {total}?"""

KIND = "array"


def inputs(rng, size):
    heights = rng.sample(range(100, 1000), size + 1)
    return {"heights": heights, "total": sum(rng.sample(heights, 2))}


def answer(heights: list[int], total: int) -> list[int]:
    seen = {}
    for j in range(len(heights)):
        height = heights[j]
        if total - height in seen:
            return [seen[total - height], j]
        seen[height] = j
    return []
