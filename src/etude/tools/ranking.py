"""Rankings: by words, two made one, and how good one is.

A ranking is a list of ids, best first. Measures take the set of relevant ids, or id -> gain, and need at least one.
"""

import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from etude.core.errors import ScoreError

K = TypeVar("K", bound=Hashable)


def bm25(query: Sequence[str], texts: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """A score for each of a few texts, 0 where no word is shared; query and texts are lists of words.

    Robertson & Zaragoza 2009, doi.org/10.1561/1500000019. For many texts, see `corpus.py`.
    """
    mean = sum(map(len, texts)) / len(texts)
    scores = [0.0] * len(texts)
    for term in set(query):
        holders = sum(term in words for words in texts)
        idf = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
        for i, words in enumerate(texts):
            count = Counter(words)[term]
            if count:
                scores[i] += idf * count * (k1 + 1) / (count + k1 * (1 - b + b * len(words) / mean))
    return scores


def reciprocal(rankings: Sequence[Sequence[K]], constant: float = 60) -> list[tuple[K, float]]:
    """Reciprocal rank fusion: an id's score is the sum over rankings of 1 / (constant + its rank, from 1).

    Cormack, Clarke & Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", doi.org/10.1145/1571941.1572114. Equal scores keep the order in which ids first come.

    >>> reciprocal([["a", "b"], ["b", "c"]], constant=1)
    [('b', 0.8333333333333333), ('a', 0.5), ('c', 0.3333333333333333)]
    """
    score: dict[K, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, 1):
            score[key] = score.get(key, 0.0) + 1 / (constant + rank)
    return sorted(score.items(), key=lambda pair: -pair[1])


def weighted(rankings: Sequence[Sequence[tuple[K, float]]], weights: Sequence[float]) -> list[tuple[K, float]]:
    """Weighted sum of scores, each list's scaled to [0, 1] by its least and greatest; an absent id counts 0.

    A list of weight 0 adds no ids, and equal sums keep the order in which ids first come: with all weight on one list,
    the ranking is that list's.

    >>> weighted([[("a", 9.0), ("b", 5.0), ("c", 1.0)], [("c", 0.2), ("d", 0.1)]], [0.5, 0.5])
    [('a', 0.5), ('c', 0.5), ('b', 0.25), ('d', 0.0)]
    """
    total: dict[K, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        if not ranking or weight == 0:
            continue
        scores = [score for _, score in ranking]
        least, spread = min(scores), max(scores) - min(scores)
        for key, score in ranking:
            total[key] = total.get(key, 0.0) + weight * ((score - least) / spread if spread else 1.0)
    return sorted(total.items(), key=lambda pair: -pair[1])


def recall(ranking: Sequence[K], relevant: Collection[K], k: int) -> float:
    """Share of the relevant ids among the first k.

    >>> recall(["a", "b", "c"], {"b", "c"}, k=2)
    0.5
    """
    return len(set(ranking[:k]) & _some(relevant)) / len(set(relevant))


def reciprocal_rank(ranking: Sequence[K], relevant: Collection[K]) -> float:
    """1 / rank of the first relevant id, 0 where there is none; its mean over queries is MRR."""
    wanted = _some(relevant)
    return next((1 / rank for rank, key in enumerate(ranking, 1) if key in wanted), 0.0)


def average_precision(ranking: Sequence[K], relevant: Collection[K]) -> float:
    """Mean over all relevant ids of the precision at their rank, 0 for one that was not found.

    >>> average_precision(["a", "x", "b"], {"a", "b"}) == (1 + 2 / 3) / 2
    True
    """
    wanted, found, total = _some(relevant), 0, 0.0
    for rank, key in enumerate(ranking, 1):
        if key in wanted:
            found += 1
            total += found / rank
    return total / len(wanted)


def ndcg(ranking: Sequence[K], gain: Mapping[K, float], k: int) -> float:
    """Discounted gain of the first k over that of the best order; the gain at rank r counts 1 / log2(r + 1).

    Järvelin & Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", doi.org/10.1145/582415.582418.
    """
    _some([key for key, value in gain.items() if value > 0])

    def discounted(gains: Sequence[float]) -> float:
        return sum(g / math.log2(rank + 1) for rank, g in enumerate(gains[:k], 1))

    return discounted([gain.get(key, 0.0) for key in ranking]) / discounted(sorted(gain.values(), reverse=True))


def _some(relevant: Collection[K]) -> set[K]:
    if not relevant:
        raise ScoreError("a ranking cannot be measured: nothing is relevant to the query")
    return set(relevant)
