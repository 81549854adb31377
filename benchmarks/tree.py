"""Training what begins alike as a tree, against every path by itself: a forward and a backward pass, nothing else.

Groups of prompt + answers, and a tree of nine leaves: a prompt of 300 tokens, six turns of 80 tokens read and 60
sampled, three branches at turns 2 and 4. The ideal is the ratio of the tokens that the two ways hold. It cannot be
reached: logits are needed for every sampled token either way, and a branch's own tokens look at the whole path. So the
ratio of the products with weights, logits included, is given as well.
"""

import bench
import numpy as np

from etude.training.learner import Row, rows
from etude.trajectory import Episode, Message, Trajectory
from etude.trajectory.forest import batches, forest

MICRO, ROUNDS = 2048, 1 if bench.QUICK else 2
GROUPS = [(2, 32, 8)] if bench.QUICK else [(4, 200, 50), (8, 400, 60), (8, 400, 200)]
PROMPT, READ, SAMPLED = (12, 4, 4) if bench.QUICK else (300, 80, 60)
BRANCHES = (1, 3, 1, 3, 1, 1)  # children of each leaf, turn by turn


def grow(trajectory: Trajectory, rng: np.random.Generator, parent: int | None, read: int, sampled: int) -> int:
    """Add what is read and what is sampled; the new leaf."""
    if read:
        ids_T = bench.random_ids(rng, read)
        parent = trajectory.add(Message("user"), parent, ids_T=ids_T, sampled_T=np.zeros(read, bool))
    ids_T = bench.random_ids(rng, sampled)
    return trajectory.add(Message("assistant"), parent, ids_T=ids_T, sampled_T=np.ones(sampled, bool), version=0)


def group(size: int, prompt: int, answer: int) -> Trajectory:
    trajectory, rng = Trajectory("group", "group"), np.random.default_rng(0)
    ids_T = bench.random_ids(rng, prompt)
    root = trajectory.add(Message("user"), None, ids_T=ids_T, sampled_T=np.zeros(prompt, bool))
    trajectory.episodes = [Episode(grow(trajectory, rng, root, 0, answer)) for _ in range(size)]
    return trajectory


def branching() -> Trajectory:
    trajectory, rng = Trajectory("tree", "tree"), np.random.default_rng(0)
    ids_T = bench.random_ids(rng, PROMPT)
    leaves = [trajectory.add(Message("user"), None, ids_T=ids_T, sampled_T=np.zeros(PROMPT, bool))]
    for branches in BRANCHES:
        leaves = [grow(trajectory, rng, leaf, READ, SAMPLED) for leaf in leaves for _ in range(branches)]
    trajectory.episodes = [Episode(leaf) for leaf in leaves]
    return trajectory


def alone(trajectory: Trajectory) -> list[Row]:
    """Each path by itself, with all that was sampled on it."""
    found = []
    for episode in trajectory.episodes:
        single = Trajectory("path", "path", messages=trajectory.messages, nodes=trajectory.nodes, episodes=[episode])
        single.weigh([1.0])
        found += rows([single])
    return found


def work_of(model, found: list[Row], together: bool) -> float:
    """Products with weights: one per token and weight below the head, and the head's for tokens with a weight."""
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - head
    tokens = sum(len(tree.ids_L) for tree in forest([row.ids_P for row in found], 10**9 if together else 1))
    return body * tokens + head * sum(int(row.mask_P.sum()) for row in found)


def main() -> None:
    policy, figures = bench.load_policy(), []
    policy.model.requires_grad_(True)

    def work(found: list[Row], reach: float | None) -> None:
        """reach: None for every row by itself."""
        sequences, masks = [row.ids_P for row in found], [row.mask_P for row in found]
        trees = forest(sequences, 1) if reach is None else forest(sequences, MICRO, reach)
        for micro in batches([[tree] for tree in trees], MICRO):
            policy.logprob(micro, masks)[0].sum().backward()
        policy.model.zero_grad()

    cases = [(f"{g} × ({p} + {a})", group(g, p, a), 90) for g, p, a in GROUPS]
    cases.append((f"tree of {np.prod(BRANCHES)} leaves", branching(), 80))
    for name, trajectory, share in cases:
        apart = alone(trajectory)
        trajectory.weigh([1.0] * len(trajectory.episodes))
        shared = rows([trajectory])
        sides = {"alone": bench.clock(lambda a=apart: work(a, None))}
        sides["tree"] = bench.clock(lambda s=shared: work(s, policy.reach))
        seconds = bench.interleave(sides, ROUNDS)
        faster = bench.ratios(seconds["alone"], seconds["tree"])
        ideal = sum(len(row.ids_P) for row in apart) / len(forest([r.ids_P for r in shared], 10**9)[0].ids_L)
        figures.append(bench.figure(f"{name}: a tree against paths alone", faster))
        figures.append(bench.figure(f"{name}: fewer tokens, the ideal", [ideal]))
        figures.append(bench.figure(f"{name}: share of the ideal", [100 * f / ideal for f in faster], "%", least=share))
        products = work_of(policy.model, apart, False) / work_of(policy.model, shared, True)
        of_products = [100 * f / products for f in faster]
        figures.append(bench.figure(f"{name}: share of the ratio of products, {products:.2f}", of_products, "%"))
    bench.report(figures)


if __name__ == "__main__":
    main()
