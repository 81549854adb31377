"""objectives/kto: desirable and undesirable episodes, each by itself."""

import math

import pytest
import torch

from etude.core.errors import PartError
from etude.core.parts import build
from etude.protocols import Batch


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def make(ratio, weight, groups=None) -> Batch:
    """Episodes of one token each, with these log-ratios over the reference."""
    E = len(ratio)
    logprob_N = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    groups = list(groups or [0] * E)
    return Batch(
        logprob_N=logprob_N,
        weight_N=torch.tensor(weight),
        old_logprob_N=logprob_N.detach(),
        sequence_N=torch.arange(E),
        length_S=torch.ones(E, dtype=torch.long),
        tokens=E,
        sequences=E,
        max_length=8,
        episode_S=torch.arange(E),
        group_S=torch.tensor(groups),
        groups=len(set(groups)),
        reference_logprob_N=torch.zeros(E, dtype=torch.float64),
    )


def run(batch: Batch, **settings) -> tuple[float, list[float], dict[str, float]]:
    loss, metrics = build("objectives/kto", **settings)(batch)
    return loss.item(), torch.autograd.grad(loss, batch.logprob_N)[0].tolist(), metrics


def test_by_hand():
    # what the others gain on average: (.6 - .2) / 2, (.4 - .2) / 2, (.4 + .6) / 2
    loss, grad, metrics = run(make([0.4, 0.6, -0.2], [1.0, -1.0, -1.0]), beta=0.5)
    gains = [0.4 - 0.2, 0.1 - 0.6, 0.5 + 0.2]
    assert loss == pytest.approx(sum(1 - sigmoid(0.5 * g) for g in gains) / 3)
    slope = [0.5 * sigmoid(0.5 * g) * (1 - sigmoid(0.5 * g)) / 3 for g in gains]
    assert grad == pytest.approx([-slope[0], slope[1], slope[2]]), "z is held constant"
    assert metrics == pytest.approx({"accuracy": 2 / 3, "kl": (0.2 + 0.1 + 0.5) / 3})


def test_the_reference_point_is_never_below_zero_and_is_zero_for_an_episode_alone():
    assert run(make([0.4, -0.6], [1.0, 1.0]), beta=1.0)[0] == pytest.approx((1 - sigmoid(0.4) + 1 - sigmoid(-1.0)) / 2)
    alone = make([0.4, 0.6], [1.0, 1.0], (0, 1))
    assert run(alone, beta=1.0)[0] == pytest.approx((1 - sigmoid(0.4) + 1 - sigmoid(0.6)) / 2)


def test_other_groups_and_unjudged_episodes_give_no_reference_point():
    batch = make([0.4, 0.6, 9.0, 0.5, 7.0], [1.0, -1.0, 0.0, 1.0, -1.0], (0, 0, 0, 1, 2))
    gains = [0.4 - 0.6, 0.4 - 0.6, 0.5, -7.0]
    assert run(batch, beta=1.0)[0] == pytest.approx(sum(1 - sigmoid(g) for g in gains) / 5)


def test_factors_of_the_two_sides_and_the_size_of_weights():
    alone = {"ratio": [0.4, 0.6], "groups": (0, 1)}
    up, down = 1 - sigmoid(0.4), 1 - sigmoid(-0.6)
    for weight, factors in (([1.0, -1.0], (3.0, 0.5)), ([0.5, -4.0], (1.5, 2.0))):
        loss, *_ = run(make(weight=weight, **alone), beta=1.0, desirable=3.0, undesirable=0.5)
        assert loss == pytest.approx((factors[0] * up + factors[1] * down) / 2)


def test_it_needs_the_reference_and_whole_groups():
    assert build("objectives/kto").needs == {"reference", "groups"}
    batch = make([0.0], [1.0])
    batch.reference_logprob_N = None
    with pytest.raises(PartError, match="objectives/kto: the batch has no reference"):
        build("objectives/kto")(batch)
