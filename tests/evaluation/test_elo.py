"""evaluation/elo: the fit by hand, what it keeps, and that it finds strengths again."""

import math
import random

import numpy as np
import pytest

from etude.core.errors import EtudeError
from etude.evaluation.elo import Battle, fit, ratings


def drawn(strengths, count, seed=0):
    """Battles of players of known ratings, some of them drawn."""
    rng, names = random.Random(seed), list(strengths)
    made = []
    for _ in range(count):
        one, other = rng.sample(names, 2)
        chance = 1 / (1 + 10 ** ((strengths[other] - strengths[one]) / 400))
        made.append(Battle(one, other, 0.5 if rng.random() < 0.1 else float(rng.random() < chance)))
    return made


def test_by_hand():
    # three of four: the likeliest odds are 3, and 400 log10(3) = 190.85 lies between the two
    found = ratings([Battle("a", "b", 1.0)] * 3 + [Battle("a", "b", 0.0)], prior=0.0, draws=0)
    assert found["a"].mean - found["b"].mean == pytest.approx(400 * math.log10(3))
    assert [round(one.mean, 2) for one in found.values()] == [1095.42, 904.58]
    # a draw is half a win for each: one won and two drawn of three are odds of 2
    found = ratings([Battle("b", "a", 0.5)] * 2 + [Battle("a", "b", 1.0)], prior=0.0, draws=0)
    assert found["a"].mean - found["b"].mean == pytest.approx(400 * math.log10(2))


@pytest.mark.exact(34)
def test_the_sum_is_conserved_and_the_order_of_battles_changes_nothing():
    battles = drawn({"a": 1100, "b": 1000, "c": 950, "d": 900}, 60)
    found = ratings(battles, draws=20)
    for seed in range(5):
        shuffled = random.Random(seed).sample(battles, len(battles))
        turned = [Battle(b.other, b.one, 1 - b.score) if n % 2 else b for n, b in enumerate(shuffled)]
        again = ratings(shuffled, draws=20)
        assert again == found, "to the last bit, intervals too"
        assert {k: v.mean for k, v in ratings(turned, draws=0).items()} == {k: v.mean for k, v in found.items()}
        assert sum(one.mean for one in again.values()) == pytest.approx(4 * 1000, abs=1e-9)
    more = ratings([*battles, *drawn({"a": 1100, "d": 900}, 20, seed=1)], draws=0)
    assert more["a"].mean != found["a"].mean
    assert sum(one.mean for one in more.values()) == pytest.approx(4 * 1000, abs=1e-9)


def test_it_is_the_maximum_of_the_likelihood():
    won_PP = np.random.default_rng(0).integers(1, 9, (4, 4)).astype(float) * (1 - np.eye(4))

    def likelihood(rating_P):
        return -(won_PP * np.log1p(10 ** ((rating_P[None] - rating_P[:, None]) / 400))).sum()

    best_P = fit(won_PP, prior=0.0)
    for p in range(4):
        for by in (-0.5, 0.5):
            assert likelihood(best_P + by * np.eye(4)[p]) < likelihood(best_P)


def test_strengths_are_found_again_within_their_intervals():
    strengths = {"a": 1200.0, "b": 1000.0, "c": 800.0}
    found = ratings(drawn(strengths, 600, seed=3))
    assert list(found) == ["a", "b", "c"]
    inside = sum(one.low < strengths[name] < one.high for name, one in found.items())
    assert inside >= 2
    assert all(one.low < one.mean < one.high for one in found.values())


def test_who_won_everything_has_a_finite_rating():
    found = ratings([Battle("a", "b", 1.0)] * 5, draws=0)
    assert 1000 < found["a"].mean < 2000
    with pytest.raises(EtudeError, match="two different players"):
        ratings([Battle("a", "a", 1.0)])
    with pytest.raises(EtudeError, match="no battles"):
        ratings([])
