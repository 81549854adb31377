"""Tune an agent of your own on its tools, tasks and score: `python examples/custom_agent.py [policy]`."""

import sys

import etude

ITEMS = ["lamp", "chair", "mug", "book", "pen", "bag", "hat", "box", "clock", "bell"]
ROWS = [{"item": item, "want": want, "have": have} for item in ITEMS for want in range(5, 13) for have in range(5)]
TASKS = [{"prompt": f"There should be {row['want']} of {row['item']} on the shelf.", **row} for row in ROWS]


@etude.tool
def stock(state: dict, item: str) -> int:
    """How many of an item are on the shelf."""
    return state["shelf"].get(item, 0)


@etude.tool
def order(state: dict, item: str, count: int) -> str:
    """Order some of an item."""
    state["orders"].append((item, count))
    return "ordered"


def setup(row: dict) -> dict:
    return {"shelf": {row["item"]: row["have"]}, "orders": []}


def score(state: dict, answer: str, row: dict) -> float:
    return float(state["orders"] == [(row["item"], row["want"] - row["have"])])


def solve(row: dict) -> list[etude.ToolCall | str]:
    missing = {"item": row["item"], "count": row["want"] - row["have"]}
    return [etude.ToolCall("stock", {"item": row["item"]}), etude.ToolCall("order", missing), "Ordered."]


world = etude.world(name="shelf", tools=[stock, order], tasks=TASKS, score=score, setup=setup, solve=solve)

if __name__ == "__main__":
    policy = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
    print(etude.run("quickstart", policy=policy, environment=world, evaluate={"tasks": 40}).report)
