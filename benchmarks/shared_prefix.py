"""Training a group with its prompt computed once, against every member with a prompt of its own, in one run.

    python benchmarks/shared_prefix.py [policy] [group] [prompt] [answer]

Prints the ratio of the medians of five interleaved forward and backward passes, and the ratio of the tokens computed,
which it cannot exceed by much.
"""

import statistics
import sys
import time

import numpy as np

from etude.core import parts
from etude.trajectory.forest import batches, forest


def main(policy: str = "smollm2", group: int = 4, prompt: int = 200, answer: int = 50) -> None:
    model = parts.build("policies/local", model=policy)
    rng = np.random.default_rng(0)
    beginning = rng.integers(10, 1000, prompt)
    sequences = [np.concatenate([beginning, rng.integers(10, 1000, answer)]) for _ in range(group)]
    masks = [np.arange(prompt + answer) >= prompt] * group
    layouts = {"alone": forest(sequences, 1), "shared": forest(sequences, 4096, model.reach)}
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    for _ in range(6):
        for name, trees in layouts.items():
            start = time.perf_counter()
            for micro in batches([[tree] for tree in trees], 2048):
                model.logprob(micro, masks)[0].sum().backward()
            seconds[name].append(time.perf_counter() - start)
            model.model.zero_grad()
    alone, shared = (statistics.median(seconds[name][1:]) for name in layouts)
    tokens = [sum(len(tree.ids_L) for tree in trees) for trees in layouts.values()]
    print(f"{policy}, {group} x ({prompt} + {answer}): {alone / shared:.2f} times as fast", end="")
    print(f", {tokens[0] / tokens[1]:.2f} times fewer tokens")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
