"""A graph of tools, and the domains that it falls into.

Environment scaling, AgentScaler, Fang et al. 2025, "Towards General Agentic Intelligence via Environment Scaling",
arXiv:2509.13311, section 2: an edge joins two tools whose parameter lists are more alike than a threshold; communities
of the graph (Louvain, Blondel et al. 2008, arXiv:0803.0476) are domains.
Departures: lists are alike in their words, rare ones above all, instead of in a model's embeddings.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from etude.core.errors import missing_extra


def communities(parameters: Sequence[str], *, threshold: float) -> list[list[int]]:
    """The tools of each domain by their places in `parameters`, both ascending; a tool like no other is one of its own.

    parameters: for each tool, the names of what it takes and gives, in one text.
    threshold: edges join tools whose cosine is above it, and weigh as much as the cosine.

    Raises MissingExtra without networkx.
    """
    try:
        import networkx
    except ImportError as error:
        raise missing_extra("graph", "networkx") from error
    rows_ND = by_words(parameters)
    cosine_NN = np.round(rows_ND @ rows_ND.T, 6)  # the last bits depend on the machine
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(parameters)))
    first, second = np.nonzero(np.triu(cosine_NN > threshold, 1))
    graph.add_weighted_edges_from((int(a), int(b), float(cosine_NN[a, b])) for a, b in zip(first, second, strict=True))
    return sorted(sorted(found) for found in networkx.community.louvain_communities(graph, seed=0))


def by_words(texts: Sequence[str]) -> np.ndarray:
    """Which words a text has, each weighted by log(N / texts that have it); rows of length 1, or 0 for an empty one."""
    words = [sorted(set(re.findall(r"\w+", text.lower()))) for text in texts]
    holders = Counter(word for some in words for word in some)
    place = {word: n for n, word in enumerate(sorted(holders))}
    rows_ND = np.zeros((len(texts), len(place)))
    for n, some in enumerate(words):
        for word in some:
            rows_ND[n, place[word]] = math.log(len(texts) / holders[word])
    return rows_ND / np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-9)
