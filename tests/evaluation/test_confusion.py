"""evaluation/confusion: the rates by hand, and over episodes as sums."""

import pytest

from etude.apps.evidence import HIGHER, MEASURES
from etude.evaluation.confusion import RATES, parts_of
from etude.evaluation.statistics import Figure
from etude.trajectory import Episode, Trajectory

# offers accepted, refused; silence where help was needed, and where not
HAND = {"tp": 6, "fp": 2, "fn": 4, "tn": 8}


@pytest.mark.exact(48)
@pytest.mark.parametrize(
    ("rate", "value"),
    [("f1", 2 / 3), ("precision", 6 / 8), ("recall", 6 / 10), ("accuracy", 14 / 20), ("false alarm", 2 / 10)],
)
def test_rates_by_hand(rate, value):
    above, below = parts_of(rate, HAND)
    assert above / below == pytest.approx(value)
    assert RATES.keys() <= MEASURES.keys()
    assert (rate in HIGHER) == (rate != "false alarm")


@pytest.mark.exact(48)
def test_a_rate_is_of_all_points_together_and_not_the_mean_of_episodes():
    counts = [{"tp": 1, "fp": 0, "fn": 0, "tn": 5}, {"tp": 1, "fp": 3, "fn": 2, "tn": 0}, {}]
    trajectory = Trajectory("t", "t")
    items = {str(n): MEASURES["f1"](trajectory, Episode(0, scores=dict(one))) for n, one in enumerate(counts)}
    assert items == {"0": (2, 2), "1": (2, 7), "2": (0, 0)}
    assert Figure(items, "ratio").value == pytest.approx(4 / 9)  # the mean of episodes would be 9/14


@pytest.mark.exact(48)
def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    precision, recall, f1 = (a / b for a, b in (parts_of(rate, HAND) for rate in ("precision", "recall", "f1")))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
