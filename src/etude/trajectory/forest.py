"""Token sequences that begin alike, laid out as trees so that a shared beginning is computed once.

Members of a group share their prompt, branches of a search the way to their fork, turns of a dialogue that a template
renders anew all that it left alone. A tree keeps each token once, with its depth as its position; a token may look at
its ancestors alone, so a path through the tree reads exactly as the sequence by itself.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tree:
    """L tokens that hold several sequences."""

    ids_L: np.ndarray
    """int32 [L]"""
    position_L: np.ndarray
    """int [L]; depth, from 0: a token's position in every sequence that it belongs to."""
    rows: list[int]
    """Which of the sequences it holds."""
    index: list[np.ndarray]
    """int [P] for each of `rows`: where the sequence's tokens lie."""

    def runs(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """The tree cut where branches begin: the length of each run of tokens, and its ancestors.

        Ancestors are earlier runs on its path, by number, each with how many of its first tokens are on the path.

        >>> forest([np.array([1, 2, 3]), np.array([1, 2, 9, 9]), np.array([1, 2, 9, 8])], 100)[0].runs()
        [(3, []), (2, [(0, 2)]), (1, [(0, 2), (1, 1)])]
        """
        run_L = np.zeros(0, int)
        runs: list[tuple[int, list[tuple[int, int]]]] = []
        for index_P in self.index:
            own = int((index_P >= len(run_L)).sum())
            if own:
                numbers, counts = np.unique(run_L[index_P[: len(index_P) - own]], return_counts=True)
                run_L = np.concatenate([run_L, np.full(own, len(runs))])
                runs.append((own, list(zip(numbers.tolist(), counts.tolist(), strict=True))))
        return runs


def forest(sequences: Sequence[np.ndarray], most: int, reach: float = math.inf) -> list[Tree]:
    """Lay sequences out as trees, each sequence in one of them.

    A sequence joins the one that begins most like it where that is the cheaper, and while the tree stays within `most`
    tokens. Alone, P tokens look at half of P on average; the L own tokens of a branch look at all P on its path.

    sequences: int32 [P] each, none empty. reach: context at which a token's attention costs as much as its weights do.

    >>> a, b, c = np.array([1, 2, 3, 4]), np.array([1, 2, 9]), np.array([5, 6])
    >>> [(t.ids_L.tolist(), t.position_L.tolist(), t.rows) for t in forest([a, b, c], 2048)]
    [([1, 2, 3, 4, 9], [0, 1, 2, 3, 2], [0, 1]), ([5, 6], [0, 1], [2])]
    """

    def cost(tokens: int, looked_at: float) -> float:
        return tokens * (1 + looked_at / reach)

    trees: list[Tree] = []
    previous = None
    # in lexicographic order the sequence before is the one that begins most like it; big-endian bytes sort like numbers
    for r in sorted(range(len(sequences)), key=lambda r: np.asarray(sequences[r]).astype(">u4").tobytes()):
        ids_P = np.asarray(sequences[r], np.int32)
        shared = 0 if previous is None else common(previous, ids_P)
        own, size = len(ids_P) - shared, len(trees[-1].ids_L) if trees else 0
        length = len(ids_P)
        if shared and size + own <= most and cost(own, length) <= cost(length, length / 2):
            tree = trees.pop()
            index_P = np.concatenate([tree.index[-1][:shared], len(tree.ids_L) + np.arange(own)])
            ids_L = np.concatenate([tree.ids_L, ids_P[shared:]])
            position_L = np.concatenate([tree.position_L, np.arange(shared, len(ids_P))])
            trees.append(Tree(ids_L, position_L, [*tree.rows, r], [*tree.index, index_P]))
        else:
            index_P = np.arange(len(ids_P))
            trees.append(Tree(ids_P, index_P, [r], [index_P]))
        previous = ids_P
    return trees


def batches(units: Sequence[Sequence[Tree]], most: int) -> Iterator[list[Tree]]:
    """Trees together, at most `most` tokens each (or one unit); large ones first, so that memory peaks early.

    units: trees that stay together.

    >>> trees = forest([np.arange(n) + 10 * n for n in (2, 3, 5, 9)], 2048)
    >>> [[len(tree.ids_L) for tree in batch] for batch in batches([[tree] for tree in trees], 10)]
    [[9], [5, 3, 2]]
    >>> [[len(tree.ids_L) for tree in batch] for batch in batches([trees[:3], trees[3:]], 10)]
    [[2, 3, 5], [9]]
    """

    def tokens(trees: Sequence[Tree]) -> int:
        return sum(len(tree.ids_L) for tree in trees)

    batch: list[Tree] = []
    for unit in sorted(units, key=tokens, reverse=True):
        if batch and tokens(batch) + tokens(unit) > most:
            yield batch
            batch = []
        batch += unit
    if batch:
        yield batch


def common(a_P: np.ndarray, b_P: np.ndarray) -> int:
    """Length of the longest common beginning."""
    n = min(len(a_P), len(b_P))
    differ = np.flatnonzero(a_P[:n] != b_P[:n])
    return int(differ[0]) if len(differ) else n
