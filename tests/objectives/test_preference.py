"""objectives/preference: DPO, IPO, SLiC, SimPO and ORPO over the episodes of a group."""

import math

import pytest
import torch

from etude.core.errors import PartError
from etude.core.parts import build
from etude.objectives.preference import LOSSES
from etude.protocols import Batch

PATHS = [0, 0, 1, 2, 3]  # of each token
LOGPROB = [-0.5, -1.0, -2.0, -0.7, -0.4]
RATIO = [0.3, 0.5, -0.6, 0.2, 0.9]  # over the reference
WEIGHT = [1.0, 1.0, -1.0, -1.0, 1.0]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def make(weight=WEIGHT, groups=(0, 0, 1, 1), episodes=(0, 1, 2, 3), logprob=LOGPROB) -> Batch:
    """Two groups of two: an episode of two tokens, chosen, and three of one token."""
    logprob_N = torch.tensor(logprob, dtype=torch.float64, requires_grad=True)
    return Batch(
        logprob_N=logprob_N,
        weight_N=torch.tensor(weight),
        old_logprob_N=logprob_N.detach(),
        sequence_N=torch.tensor(PATHS),
        length_S=torch.tensor([2, 1, 1, 1]),
        tokens=5,
        sequences=4,
        max_length=8,
        episode_S=torch.tensor(episodes),
        group_S=torch.tensor(groups),
        groups=len(set(groups)),
        reference_logprob_N=logprob_N.detach() - torch.tensor(RATIO, dtype=torch.float64),
    )


def loss_of(batch: Batch, **settings) -> float:
    return build("objectives/preference", **settings)(batch)[0].item()


@pytest.mark.parametrize(
    ("loss", "pairs"),
    [
        # s is .8 and -.6 in the first group, .9 and .2 in the second
        ("sigmoid", [-log_sigmoid(0.5 * 1.4), -log_sigmoid(0.5 * 0.7)]),
        ("hinge", [1 - 0.5 * 1.4, 1 - 0.5 * 0.7]),
        ("ipo", [(0.4 + 0.6 - 1) ** 2, (0.7 - 1) ** 2]),
        # p is -.75 and -2, then -.4 and -.7
        ("simpo", [-log_sigmoid(0.5 * 1.25 - 0.3), -log_sigmoid(0.5 * 0.3 - 0.3)]),
    ],
)
def test_by_hand(loss, pairs):
    assert loss_of(make(), loss=loss, beta=0.5, margin=0.3) == pytest.approx(sum(pairs) / 2)


def test_orpo_by_hand():
    def odds(p: float) -> float:
        return math.log(math.exp(p) / (1 - math.exp(p)))

    first = 0.75 - 0.5 * log_sigmoid(odds(-0.75) - odds(-2.0))
    second = 0.4 - 0.5 * log_sigmoid(odds(-0.4) - odds(-0.7))
    assert loss_of(make(), loss="orpo", beta=0.5) == pytest.approx((first + second) / 2)


def test_gradient_by_hand():
    batch = make()
    loss, _ = build("objectives/preference", beta=0.5)(batch)
    (grad,) = torch.autograd.grad(loss, batch.logprob_N)
    first, second = 0.25 / (1 + math.exp(0.7)), 0.25 / (1 + math.exp(0.35))  # beta / groups x (1 - sigmoid)
    assert grad.tolist() == pytest.approx([-first, -first, first, second, -second])


def test_all_pairs_of_a_group_and_their_mean():
    """.8 and .9 are chosen, -.6 and .2 rejected; a group counts as much as another, however many pairs it has."""
    pairs = [-log_sigmoid(w - r) for w in (0.8, 0.9) for r in (-0.6, 0.2)]
    batch = make(groups=(0, 0, 0, 0))
    assert loss_of(batch, beta=1.0) == pytest.approx(sum(pairs) / 4)
    metrics = build("objectives/preference", beta=1.0)(batch)[1]
    assert metrics == pytest.approx({"pairs": 4, "accuracy": 1.0, "margin": 0.85 + 0.2})
    batch.groups = 2
    assert loss_of(batch, beta=1.0) == pytest.approx(sum(pairs) / 8)


def test_a_group_without_a_pair_adds_nothing():
    for weight in ([1.0, 1.0, -1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 0.0, -1.0]):
        assert loss_of(make(weight), beta=0.5) == pytest.approx(-log_sigmoid(0.7) / 2)
    assert loss_of(make([1.0] * 5)) == 0.0


def test_weights_scale_a_pair_by_half_their_difference():
    pair = -log_sigmoid(0.7) / 2
    assert loss_of(make([2.0, 2.0, -1.0, 1.0, 1.0]), beta=0.5) == pytest.approx(1.5 * pair)
    assert loss_of(make([3.0, 1.0, -1.0, 1.0, 1.0]), beta=0.5) == pytest.approx(1.5 * pair), "by the mean of its tokens"


def test_a_token_of_weight_zero_is_in_no_sum_and_no_length():
    weight = [0.0, 1.0, -1.0, 1.0, 1.0]
    assert loss_of(make(weight), beta=0.5) == pytest.approx(-log_sigmoid(0.5 * 1.1) / 2)
    assert loss_of(make(weight), loss="ipo", beta=0.5) == pytest.approx((1.1 - 1) ** 2 / 2)


def test_the_paths_of_one_episode_are_one():
    """The first two paths are one episode of log-ratio .2, against .2 rejected and .9 chosen."""
    batch = make([1.0, 1.0, 1.0, -1.0, 1.0], groups=(0, 0, 0, 0), episodes=(0, 0, 1, 2))
    assert loss_of(batch, beta=1.0) == pytest.approx(-(log_sigmoid(0.0) + log_sigmoid(0.7)) / 2)
    assert loss_of(batch, loss="ipo", beta=0.5) == pytest.approx(((0.2 / 3 - 0.2 - 1) ** 2 + 0.3**2) / 2)


@pytest.mark.parametrize(("loss", "margin"), [("sigmoid", 0.0), ("simpo", 0.3)])
def test_smoothing_takes_some_pairs_the_wrong_way_round(loss, margin):
    ahead = 0.7 if loss == "sigmoid" else 0.5 * 1.25 - margin
    got = loss_of(make([1.0, 1.0, -1.0, 1.0, 1.0]), loss=loss, beta=0.5, margin=margin, smoothing=0.2)
    assert got == pytest.approx(-(0.8 * log_sigmoid(ahead) + 0.2 * log_sigmoid(-ahead)) / 2)
    with pytest.raises(PartError, match=r"smoothing=0.2 has no meaning for loss='ipo'"):
        build("objectives/preference", loss="ipo", smoothing=0.2)


def test_odds_stay_finite_where_a_probability_is_one():
    batch = make(logprob=[0.0] * 5)
    loss, _ = build("objectives/preference", loss="orpo")(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert batch.logprob_N.grad is not None
    assert torch.isfinite(batch.logprob_N.grad).all()


def test_what_it_needs():
    for loss in LOSSES:
        part = build("objectives/preference", loss=loss)
        assert part.needs == ({"groups"} if loss in ("simpo", "orpo") else {"groups", "reference"})
        batch = make()
        batch.reference_logprob_N = None
        if "reference" in part.needs:
            with pytest.raises(PartError, match=f"loss='{loss}' but the batch has no reference"):
                part(batch)
        else:
            part(batch)


def test_an_episode_of_both_signs_and_an_unknown_loss_are_refused():
    with pytest.raises(
        PartError, match=r"objectives/preference: an episode has tokens of positive and of negative weight"
    ):
        loss_of(make([1.0, -1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(PartError, match=r"loss='simp'; did you mean 'simpo'"):
        build("objectives/preference", loss="simp")
