"""Offers of help against what was needed: four counts over decision points, and the rates made of them.

Lu et al. 2024, "Proactive Agent: Shifting LLM Agents from Reactive Responses to Active Assistance", arXiv:2410.12361,
section 3.2. At each decision point an agent offers a task or is silent:

    tp  it offered, and the user accepted          fn  it was silent, and help was needed
    fp  it offered, and the user refused           tn  it was silent, and no help was needed

    precision = tp / (tp + fp)     recall = tp / (tp + fn)     accuracy = (tp + tn) / all
    F1 = 2 tp / (2 tp + fp + fn)   false alarm = fp / (fp + tn)

Each is a ratio of two sums, taken over all points of all episodes. A world gives the counts to its episodes' scores.
Departures: the authors' code has false alarm = fp / (tp + fp), which is 1 - precision; here it is the share of refused
offers among the points at which there was nothing to gain, so that an agent that always offers has 1.
"""

from collections.abc import Mapping

COUNTS = ("tp", "fp", "fn", "tn")
RATES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "f1": ({"tp": 2}, {"tp": 2, "fp": 1, "fn": 1}),
    "precision": ({"tp": 1}, {"tp": 1, "fp": 1}),
    "recall": ({"tp": 1}, {"tp": 1, "fn": 1}),
    "accuracy": ({"tp": 1, "tn": 1}, dict.fromkeys(COUNTS, 1)),
    "false alarm": ({"fp": 1}, {"fp": 1, "tn": 1}),
}
"""Rate -> how often each count is in what is above the line and what is below it."""


def parts_of(rate: str, counts: Mapping[str, float]) -> tuple[float, float]:
    """What stands above the line and below it, so that sums over episodes can be divided; counts that lack are 0.

    >>> parts_of("f1", {"tp": 3, "fp": 1, "fn": 2, "tn": 4})
    (6, 9)
    """
    above, below = ({name: n * counts.get(name, 0) for name, n in side.items()} for side in RATES[rate])
    return sum(above.values()), sum(below.values())
