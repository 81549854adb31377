import itertools
import json
import math

import numpy as np
import pytest

from etude.core.errors import EtudeError
from etude.evaluation.statistics import (
    STATISTICS,
    Figure,
    cohen_kappa,
    difference,
    distinct_n,
    expected_calibration_error,
    mean_interval,
    paired_bootstrap,
    pass_at_k,
    perplexity,
    position_bias,
    word_set_distance,
)


def test_a_constant_difference_has_no_width():
    got = paired_bootstrap(np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 7.0]))
    assert (got.mean, got.low, got.high) == pytest.approx((2.0, 2.0, 2.0))


def test_two_items_give_the_three_means_that_can_be_drawn():
    # differences 0 and 1: the resampled mean is 0, .5 or 1 with chances 1/4, 1/2, 1/4
    got = paired_bootstrap(np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    assert (got.mean, got.low, got.high) == (0.5, 0.0, 1.0)
    assert paired_bootstrap(np.array([0.0, 0.0]), np.array([0.0, 1.0]), level=0.4).low == 0.5


def test_interval_agrees_with_the_normal_one_for_many_items():
    value_N = np.random.default_rng(0).normal(3.0, 2.0, 400)
    got = mean_interval(value_N)
    half = 1.96 * value_N.std() / math.sqrt(400)
    assert got.mean == pytest.approx(value_N.mean())
    assert got.low == pytest.approx(value_N.mean() - half, abs=0.02)
    assert got.high == pytest.approx(value_N.mean() + half, abs=0.02)


def test_95_percent_intervals_hold_the_true_difference_about_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        skill_N = rng.uniform(0.1, 0.7, 60)  # tasks differ; both sides share their difficulty
        before_N = (rng.random(60) < skill_N).astype(float)
        after_N = (rng.random(60) < skill_N + 0.2).astype(float)
        got = paired_bootstrap(before_N, after_N, draws=800, seed=trial)
        held += got.low <= 0.2 <= got.high
    assert 0.92 <= held / 300 <= 0.98


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(1)
    difficulty_N = rng.normal(0, 10, 50)
    before_N, after_N = difficulty_N, difficulty_N + 1 + rng.normal(0, 0.1, 50)
    paired = paired_bootstrap(before_N, after_N)
    mismatched = paired_bootstrap(before_N, rng.permutation(after_N))
    assert paired.high - paired.low < 0.1 < 2 < mismatched.high - mismatched.low


def test_same_seed_same_interval():
    before_N, after_N = np.random.default_rng(2).random((2, 30))
    assert paired_bootstrap(before_N, after_N, seed=7) == paired_bootstrap(before_N, after_N, seed=7)
    assert paired_bootstrap(before_N, after_N, seed=7) != paired_bootstrap(before_N, after_N, seed=8)


@pytest.mark.parametrize(
    ("statistic", "of"),
    [
        ("ratio", lambda rows: rows[:, 0].sum() / rows[:, 1].sum()),
        ("exp_ratio", lambda rows: np.exp(rows[:, 0].sum() / rows[:, 1].sum())),
        ("ece", lambda rows: expected_calibration_error(rows[:, 0], rows[:, 1])),
    ],
)
def test_bootstrap_of_a_statistic_equals_resampling_the_rows(statistic, of):
    rng = np.random.default_rng(3)
    before_NK, after_NK = rng.uniform(0.4, 1.0, (2, 25, 2))
    got = paired_bootstrap(before_NK, after_NK, statistic=statistic, draws=8000)
    draws = [
        of(after_NK[rows]) - of(before_NK[rows]) for rows in np.random.default_rng(9).integers(0, 25, size=(8000, 25))
    ]
    assert got.mean == pytest.approx(of(after_NK) - of(before_NK))
    assert got.low == pytest.approx(np.quantile(draws, 0.025), abs=0.02)
    assert got.high == pytest.approx(np.quantile(draws, 0.975), abs=0.02)


def test_one_item_has_no_interval_and_unequal_sides_are_refused():
    got = paired_bootstrap(np.array([1.0]), np.array([3.0]))
    assert got.mean == 2.0
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    with pytest.raises(EtudeError, match="3 items before and 2 after"):
        paired_bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(EtudeError, match="0 items before"):
        paired_bootstrap(np.zeros(0), np.zeros(0))


@pytest.mark.parametrize(("n", "c", "k"), [(5, 0, 2), (5, 1, 2), (5, 2, 3), (5, 5, 1), (4, 3, 4)])
def test_pass_at_k_counts_the_subsets_with_a_success(n, c, k):
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_is_unbiased_where_the_plug_in_is_not():
    rng = np.random.default_rng(4)
    counts = rng.binomial(4, 0.3, 4000)
    truth = 1 - 0.7**2
    assert np.mean([pass_at_k(4, int(c), 2) for c in counts]) == pytest.approx(truth, abs=0.015)
    assert abs(np.mean([1 - (1 - c / 4) ** 2 for c in counts]) - truth) > 0.04


def test_pass_at_k_refuses_more_attempts_than_there_were():
    with pytest.raises(EtudeError, match="pass@5 of 1 successes in 4 attempts"):
        pass_at_k(4, 1, 5)


def test_calibration_error_by_hand():
    # bin .9-1: confidence .95, accuracy 1/2, gap .45, half of the items; bin .6-.7: .65 against 1, gap .35, half
    assert expected_calibration_error(np.array([0.95, 0.95, 0.65, 0.65]), np.array([1, 0, 1, 1])) == pytest.approx(0.40)
    # gaps of opposite sign cancel within a bin, and do not between bins
    assert expected_calibration_error(np.array([0.52, 0.58]), np.array([0, 1])) == pytest.approx(0.05)
    assert expected_calibration_error(np.array([0.52, 0.58]), np.array([0, 1]), bins=20) == pytest.approx(0.47)
    assert expected_calibration_error(np.array([1.0, 1.0]), np.array([1, 0])) == 0.5  # certainty has a bin too


def test_diversity_by_hand():
    assert distinct_n(["the cat sat", "the cat ran"], 2) == 3 / 4
    assert distinct_n(["The cat.", "the CAT!"], 2) == 1 / 2
    assert distinct_n(["one", ""], 2) == 0.0
    # pairs: {a,b},{b,c}: 2/3; {a,b},{a,b}: 0; {b,c},{a,b}: 2/3
    assert word_set_distance(["a b", "b c", "b a"]) == pytest.approx(4 / 9)
    assert word_set_distance(["", ""]) == 0.0
    assert word_set_distance(["alone"]) == 0.0


def test_kappa_of_cohen_s_own_kind_of_table():
    # of 50 items both say yes to 20 and no to 15, one alone yes to 5, the other alone yes to 10:
    # observed .7, by chance .5 * .6 + .5 * .4 = .5
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(one, other) == pytest.approx(0.4)
    assert cohen_kappa(one, one) == 1.0
    assert cohen_kappa([0, 1], [1, 0]) == -1.0
    assert cohen_kappa([0, 0, 1, 1], [0, 1, 0, 1]) == 0.0
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    for wrong in ([], [1]):
        with pytest.raises(EtudeError, match=f"2 and {len(wrong)} judgements"):
            cohen_kappa([1, 1], wrong)
    with pytest.raises(EtudeError, match="0 and 0 judgements"):
        cohen_kappa([], [])


def test_position_bias_counts_the_places_that_win_in_both_orders():
    assert position_bias([1, 2, 1, 2], [2, 1, 2, 1]) == (0.0, 0.0)  # the same episode won each time
    assert position_bias([1, 1, 2, 0, 0], [1, 2, 2, 0, 1]) == (0.2, 0.2)
    with pytest.raises(EtudeError, match="1 and 0 verdicts"):
        position_bias([1], [])


def test_perplexity_of_a_uniform_choice_is_its_size():
    assert perplexity(np.log(np.full(7, 1 / 50))) == pytest.approx(50)


def test_a_figure_survives_json_and_weighs_by_tokens():
    figure = Figure({"short": (1.0, 1.0), "long": (0.0, 3.0)}, "exp_ratio", "nats", higher_is_better=False)
    assert figure.value == pytest.approx(math.exp(1 / 4))
    assert figure.of(["short"]) == pytest.approx(math.e)
    assert math.isnan(Figure({}).value)
    assert Figure.from_json(json.loads(json.dumps(figure.to_json()))) == figure


def test_a_difference_is_of_two_figures_over_the_items_of_both():
    one = Figure({"a": (1.0,), "b": (0.0,), "c": (1.0,)})
    other = Figure({"c": (0.0, 2.0), "d": (3.0, 4.0)}, "ratio")
    found = difference(one, other)
    assert found.value == pytest.approx(one.value - other.value)
    count_1N = np.array([[0.0, 2.0, 1.0, 1.0]])  # the items drawn anew: b twice, c and d once
    assert STATISTICS["difference"](count_1N, found.rows_NK(list("abcd")))[0] == pytest.approx(1 / 3 - 3 / 6)
    with pytest.raises(EtudeError, match="exp_ratio"):
        difference(one, Figure({"a": (1.0, 1.0)}, "exp_ratio"))
