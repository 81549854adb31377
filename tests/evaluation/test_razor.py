"""evaluation/razor: divergence, projections, the fit, and the guard."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.agents.loops import native
from etude.core.errors import EtudeError
from etude.evaluation.razor import METHODS, Toy, fit, forward_kl, i_projection, kl, oracle_labels, right_actions
from etude.protocols import Sampling
from etude.rollout.collect import collect

from ..engine_fixtures import Talk, load_policy, policy, tiny_model_directory  # noqa: F401

RIGHT = np.array([[True, False, True, False], [False, True, True, True]])
PRIOR = np.array([[0.4, 0.3, 0.1, 0.2], [0.7, 0.05, 0.15, 0.1]])


def rows(count: int = 1):
    one = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4).map(lambda x: np.array(x) / sum(x))
    return st.lists(one, min_size=count, max_size=count).map(np.stack)


@pytest.mark.exact(138)
@given(rows(3))
def test_divergence_from_itself_is_zero(p):
    np.testing.assert_allclose(kl(p, p), 0.0, atol=1e-15)


def test_divergence_by_hand():
    half = np.array([[0.5, 0.5]])
    assert kl(half, np.array([[0.25, 0.75]]))[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl(np.array([[1.0, 0.0]]), half)[0] == pytest.approx(math.log(2))
    assert kl(half, np.array([[1.0, 0.0]]))[0] == math.inf


@pytest.mark.exact(138)
def test_i_projection_is_the_prior_restricted_and_normalised():
    expected = [[0.8, 0.0, 0.2, 0.0], [0.0, 1 / 6, 1 / 2, 1 / 3]]
    projected = i_projection(PRIOR, RIGHT)
    np.testing.assert_allclose(projected, expected)
    np.testing.assert_allclose(kl(projected, PRIOR), -np.log([0.5, 0.3]))  # -log of the prior's accuracy


@pytest.mark.exact(138)
@given(rows(), rows())
def test_no_policy_that_is_always_right_is_nearer(prior, other):
    right = RIGHT[:1]
    rival = np.where(right, other, 0.0)
    rival /= rival.sum()
    assert kl(rival, prior)[0] >= kl(i_projection(prior, right), prior)[0] - 1e-12


@pytest.mark.exact(138)
@given(rows(2))
def test_oracle_labels_are_nearest_among_all_right_labellings(prior):
    """Every labelling of the discrete toy is tried: the sum of KL(one-hot || prior) is least for the oracle's."""

    def cost(labels) -> float:
        return float(kl(np.eye(4)[list(labels)], prior).sum())

    every = list(itertools.product(*(np.flatnonzero(row) for row in RIGHT)))
    assert len(every) == 6
    assert cost(oracle_labels(prior, RIGHT)) == pytest.approx(min(map(cost, every)))
    assert all(RIGHT[n, a] for n, a in enumerate(oracle_labels(prior, RIGHT)))


def test_a_row_without_a_right_action_is_refused():
    with pytest.raises(EtudeError, match="row 1 has no right action"):
        i_projection(PRIOR, np.array([[True] * 4, [False] * 4]))


def test_the_fit_finds_a_parabola_and_how_much_it_explains():
    x = np.linspace(0, 2, 9)
    exact = fit(x, 0.5 * x**2 - x + 0.25)
    np.testing.assert_allclose(exact.coefficients, [0.5, -1.0, 0.25], atol=1e-12)
    assert exact.r_squared == pytest.approx(1.0)
    assert fit([0, 1, 2, 3], [1, -1, -1, 1], degree=1).r_squared == pytest.approx(0.0)
    with pytest.raises(EtudeError, match="3 points for a polynomial of degree 2"):
        fit([0, 1, 2], [0, 1, 2])


def test_right_actions_have_the_parity_of_the_digit():
    assert right_actions(np.array([4, 7])).tolist() == [[True, False] * 5, [False, True] * 5]


def test_the_toy_learns_parity_and_moves(monkeypatch):
    monkeypatch.setattr("etude.evaluation.razor.STEPS", 50)
    toy = Toy(100)
    start = float((toy.before * toy.test_right).sum(-1).mean())
    assert 0.55 < start < 0.85
    assert toy.prior_accuracy > 0.8
    for method in METHODS:
        first, last = toy.practise(method, 1e-3)
        assert last.accuracy > start
        assert first.divergence > 0
        assert last.moved > first.moved > 0


@pytest.mark.exact(138)
async def test_a_policy_that_did_not_move_is_at_distance_zero(load_policy):  # noqa: F811
    policy = load_policy()  # noqa: F811
    played = await collect(policy, Talk().tasks("train"), agent=native(), sampling=Sampling(12), group=2)
    assert await forward_kl(policy, played) == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[5:20] += 0.5
    policy.changed()
    assert await forward_kl(policy, played) > 0.01
    assert math.isnan(await forward_kl(policy, []))
