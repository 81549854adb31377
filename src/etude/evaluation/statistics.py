"""Estimators with their intervals; numpy only.

A `Figure` keeps one row of numbers per item (a task, a question, a paragraph), so that two measurements can be paired
item by item. Every statistic is a function of how often each item counts, `count_DN`, so that its bootstrap is one
matrix product over all draws.

Paired percentile bootstrap: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13; the resampled unit is
    the item. Intervals of fewer than about ten items are somewhat too narrow, and a difference that is the same for
    every item gives an interval of no width.
pass@k: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374, eq. 1:
    1 - C(n-c, k) / C(n, k)
ECE: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, eq. 3, bins of equal width.
kappa: Cohen 1960, "A Coefficient of Agreement for Nominal Scales", doi.org/10.1177/001316446002000104.
position bias: Zheng et al. 2023, "Judging LLM-as-a-Judge", arXiv:2306.05685, section 3.3.
distinct-n: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", arXiv:1510.03055.

Departures: `correct` of the calibration error may be a share (several attempts at one item) and not only 0 or 1.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etude.core.errors import EtudeError


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds; the bounds are NaN where fewer than two items leave nothing to resample."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One measured quantity, item by item."""

    items: dict[str, tuple[float, ...]] = field(repr=False)
    """Item id -> its numbers, as many as the statistic reads."""
    statistic: str = "mean"
    """Of `mean` (x), `ratio` (total, count), `exp_ratio` (the same), `ece` (confidence, correct), `difference` (the
    total and count of one ratio, then those of another that is taken from it)."""
    unit: str = ""
    """`share` is shown in percent; anything else is shown as a number."""
    higher_is_better: bool = True

    @property
    def value(self) -> float:
        """The statistic over all items; NaN without items."""
        return self.of(list(self.items))

    def of(self, ids: Sequence[str]) -> float:
        """The statistic over some of the items."""
        rows_NK = self.rows_NK(ids)
        return float(STATISTICS[self.statistic](np.ones((1, len(rows_NK))), rows_NK)[0]) if len(rows_NK) else math.nan

    def rows_NK(self, ids: Sequence[str]) -> np.ndarray:
        """float64 [N, K]; the numbers of the items in this order."""
        return _columns(np.array([self.items[i] for i in ids], dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """A value that `from_json` turns back into this figure."""
        return {**vars(self), "items": {key: list(row) for key, row in self.items.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Figure":
        return cls(**{**value, "items": {key: tuple(row) for key, row in value["items"].items()}})


# -- statistics of weighted items: count_DN float [D, N], rows_NK float [N, K] -> float [D] ---------------------------


def _mean(count_DN: np.ndarray, rows_NK: np.ndarray) -> np.ndarray:
    return count_DN @ rows_NK[:, 0] / count_DN.sum(1)


def _ratio(count_DN: np.ndarray, rows_NK: np.ndarray) -> np.ndarray:
    return (count_DN @ rows_NK[:, 0]) / (count_DN @ rows_NK[:, 1])


def _exp_ratio(count_DN: np.ndarray, rows_NK: np.ndarray) -> np.ndarray:
    return np.exp(_ratio(count_DN, rows_NK))


def _ece(count_DN: np.ndarray, rows_NK: np.ndarray, bins: int = 10) -> np.ndarray:
    confidence_N, correct_N = rows_NK[:, 0], rows_NK[:, 1]
    bin_N = np.minimum((confidence_N * bins).astype(int), bins - 1)
    gap_NB = np.where(bin_N[:, None] == np.arange(bins), (correct_N - confidence_N)[:, None], 0.0)
    return np.abs(count_DN @ gap_NB).sum(1) / count_DN.sum(1)


def _difference(count_DN: np.ndarray, rows_NK: np.ndarray) -> np.ndarray:
    return _ratio(count_DN, rows_NK[:, :2]) - _ratio(count_DN, rows_NK[:, 2:])


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": _mean,
    "ratio": _ratio,
    "exp_ratio": _exp_ratio,
    "ece": _ece,
    "difference": _difference,
}


def difference(one: Figure, other: Figure) -> Figure:
    """How far one figure is above another, over the items of both. Raises EtudeError for others than means and ratios.

    >>> difference(Figure({"a": (1.0,), "b": (0.0,)}), Figure({"c": (0.25,)})).value
    0.25
    """
    items: dict[str, tuple[float, ...]] = {}
    for place, figure in enumerate((one, other)):
        if figure.statistic not in ("mean", "ratio"):
            raise EtudeError(f"a difference is of means or ratios, not of {figure.statistic!r}")
        for item, row in figure.items.items():
            pair = (*row, 1.0)[:2]
            before = items.get(item, (0.0,) * 4)
            items[item] = (*pair, *before[2:]) if place == 0 else (*before[:2], *pair)
    return Figure(items, "difference", one.unit, one.higher_is_better)


# -- intervals -----------------------------------------------------------------------------------------------------


def paired_bootstrap(
    before_N: np.ndarray,
    after_N: np.ndarray,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
    statistic: str = "mean",
) -> Interval:
    """Difference after - before of a statistic, with a percentile interval that resamples the items in pairs.

    before_N, after_N: float [N] or [N, K]; row i of both belongs to the same item.
    level: share of intervals that should hold the true difference.
    Raises EtudeError when the two do not have the same items, or there are none.

    >>> paired_bootstrap(np.array([0., 0., 1., 1.]), np.array([1., 1., 1., 1.])).mean
    0.5
    """
    before_NK, after_NK = (_columns(np.asarray(x, np.float64)) for x in (before_N, after_N))
    if before_NK.shape != after_NK.shape or not len(before_NK):
        raise EtudeError(
            f"{len(before_NK)} items before and {len(after_NK)} after: a pair needs the same items, at least one"
        )
    of = STATISTICS[statistic]
    once = np.ones((1, len(before_NK)))
    mean = float((of(once, after_NK) - of(once, before_NK))[0])
    if len(before_NK) < 2:
        return Interval(mean, math.nan, math.nan)
    count_DN = _resample(len(before_NK), draws, seed)
    difference_D = of(count_DN, after_NK) - of(count_DN, before_NK)
    low, high = np.quantile(difference_D, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def mean_interval(value_N: np.ndarray, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of float [N] with its percentile bootstrap interval."""
    return paired_bootstrap(np.zeros(len(value_N)), value_N, level=level, draws=draws, seed=seed)


def _columns(rows: np.ndarray) -> np.ndarray:
    """float [N] or [N, K] -> [N, K]."""
    return rows if rows.ndim == 2 else rows[:, None]


def _resample(items: int, draws: int, seed: int) -> np.ndarray:
    """float64 [D, N]; how often each item is drawn when as many as there are are drawn with replacement."""
    return np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)


# -- single estimates ----------------------------------------------------------------------------------------------


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k attempts succeeds, without bias, from c successes in n attempts.

    Raises EtudeError unless 0 <= c <= n and 1 <= k <= n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise EtudeError(
            f"pass@{k} of {c} successes in {n} attempts: needs 0 <= successes <= attempts and 1 <= k <= attempts"
        )
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def expected_calibration_error(confidence_N: np.ndarray, correct_N: np.ndarray, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, each weighted by its items; 0 is perfect.

    confidence_N, correct_N: float [N] within 0..1. A confidence on an edge belongs to the bin above it.
    """
    rows_NK = np.stack([np.asarray(confidence_N, np.float64), np.asarray(correct_N, np.float64)], 1)
    return float(_ece(np.ones((1, len(rows_NK))), rows_NK, bins)[0])


def cohen_kappa(one_N: Sequence[Any], other_N: Sequence[Any]) -> float:
    """Agreement of two judges, or of a judge with labels, beyond chance: 1 always, 0 as often as by chance.

    one_N, other_N: what each says of the same N items, any values that can be compared for equality.
    NaN where both give one and the same value to all. Raises EtudeError unless both judge the same items, at least one.

    >>> cohen_kappa(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"])
    0.5
    """
    if len(one_N) != len(other_N) or not len(one_N):
        raise EtudeError(f"{len(one_N)} and {len(other_N)} judgements: kappa needs the same items, at least one")
    items, one, other = len(one_N), Counter(one_N), Counter(other_N)
    observed = sum(a == b for a, b in zip(one_N, other_N, strict=True)) / items
    chance = sum(one[value] * other[value] for value in one) / items**2
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def position_bias(place_N: Sequence[int], swapped_N: Sequence[int]) -> tuple[float, float]:
    """Shares of pairs in which the first place won in both orders, and in which the second did; 0 and 0 is no bias.

    place_N, swapped_N: the place that won, 1 or 2, or 0 for a tie, of the same N pairs in one order and in the other.
    Raises EtudeError unless both hold the same pairs, at least one.

    >>> position_bias([1, 1, 1, 0], [2, 1, 1, 2])
    (0.5, 0.0)
    """
    if len(place_N) != len(swapped_N) or not len(place_N):
        raise EtudeError(f"{len(place_N)} and {len(swapped_N)} verdicts: both orders need the same pairs, at least one")
    both = [a if a == b else 0 for a, b in zip(place_N, swapped_N, strict=True)]
    return both.count(1) / len(both), both.count(2) / len(both)


def perplexity(logprob_N: np.ndarray) -> float:
    """exp of the mean negative log-probability; logprob_N: float [N], nats."""
    return float(np.exp(-np.mean(logprob_N)))


def words(text: str) -> list[str]:
    """Lower-case words; the unit of the diversity figures."""
    return re.findall(r"\w+", text.lower())


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Share of the word n-grams of several texts that are different; 0 where there is none.

    >>> distinct_n(["a b c", "a b d"])
    0.75
    """
    grams = [gram for text in texts for gram in zip(*(words(text)[i:] for i in range(n)), strict=False)]
    return len(set(grams)) / len(grams) if grams else 0.0


def word_set_distance(texts: Sequence[str]) -> float:
    """Mean Jaccard distance between the word sets of all pairs of texts: 0 all the same, 1 nothing shared.

    >>> word_set_distance(["a b", "b c"])
    0.6666666666666667
    """
    pairs = list(itertools.combinations([set(words(text)) for text in texts], 2))
    distances = [1 - len(a & b) / len(a | b) if a | b else 0.0 for a, b in pairs]
    return sum(distances) / len(distances) if distances else 0.0
