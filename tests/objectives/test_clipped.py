"""objectives/clipped: ratio, clip, divergence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from etude.core.errors import PartError
from etude.core.parts import build
from etude.protocols import Batch


def one_token(ratio: float, weight: float, **settings: float) -> tuple[float, float, dict[str, float]]:
    """Loss, its gradient by the token's log-probability, metrics."""
    logprob_N = torch.tensor([math.log(ratio) - 2.0], dtype=torch.float64, requires_grad=True)
    batch = Batch(
        logprob_N,
        torch.tensor([weight]),
        torch.tensor([-2.0]),
        torch.tensor([0]),
        torch.tensor([1]),
        1,
        1,
        8,
        torch.tensor([0]),
        torch.tensor([0]),
        1,
    )
    loss, metrics = build("objectives/clipped", **settings)(batch)
    (grad,) = torch.autograd.grad(loss, logprob_N)
    return loss.item(), grad.item(), metrics


@pytest.mark.parametrize(
    ("ratio", "weight", "loss", "grad"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # far enough up: clipped at 1.2
        (0.5, 2.0, -1.0, -1.0),  # a positive weight may always climb back
        (0.5, -2.0, 1.6, 0.0),  # far enough down: clipped at 0.8
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_one_token_by_hand(ratio, weight, loss, grad):
    got_loss, got_grad, metrics = one_token(ratio, weight)
    assert got_loss == pytest.approx(loss)
    assert got_grad == pytest.approx(grad)
    assert metrics["clipped"] == float(grad == 0.0)
    assert metrics["ratio"] == pytest.approx(ratio)
    assert metrics["old_kl"] == pytest.approx(1 / ratio - math.log(1 / ratio) - 1)


def test_clip_is_asymmetric():
    assert one_token(1.25, 1.0, high=0.28)[1] == pytest.approx(-1.25)
    assert one_token(1.25, 1.0, high=0.2)[1] == 0.0
    assert one_token(0.75, -1.0, low=0.3)[1] == pytest.approx(0.75)


def test_dual_clip_bounds_an_unlikely_token():
    assert one_token(10.0, -1.0)[0] == pytest.approx(10.0)
    loss, grad, _ = one_token(10.0, -1.0, dual=3.0)
    assert (loss, grad) == (pytest.approx(3.0), 0.0)
    with pytest.raises(PartError, match=r"dual=1.1 must exceed 1 \+ high"):
        build("objectives/clipped", dual=1.1)


@pytest.mark.parametrize("importance", ["sequence", "product"])
def test_the_ratio_is_of_the_tokens_of_a_path_however_long_its_episode_is(make_batch, importance):
    objective = build("objectives/clipped", importance=importance)
    whole, part = make_batch(), replace(make_batch(), length_S=torch.tensor([30, 30, 30]))
    assert objective(part)[1] == objective(whole)[1]


def two_episodes(**settings: object) -> tuple[float, list[float]]:
    """Log-ratios .3 and -.1 in episode 0, .05 in episode 1; weights 1, 1, -1."""
    old_N = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
    logprob_N = (old_N + torch.tensor([0.3, -0.1, 0.05])).requires_grad_()
    weight_N = torch.tensor([1.0, 1.0, -1.0])
    batch = Batch(
        logprob_N,
        weight_N,
        old_N,
        torch.tensor([0, 0, 1]),
        torch.tensor([2, 1]),
        3,
        2,
        8,
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
        2,
    )
    loss, _ = build("objectives/clipped", **settings)(batch)
    return loss.item(), torch.autograd.grad(loss, logprob_N)[0].tolist()


def test_importance_of_the_sequence_by_hand():
    up, down = math.exp(0.1), math.exp(0.05)  # the geometric mean of episode 0 is exp((.3 - .1) / 2)
    loss, grad = two_episodes(importance="sequence", normalise="sequence")
    assert loss == pytest.approx((-up + down) / 2)
    assert grad == pytest.approx([-up / 4, -up / 4, down / 2])


def test_importance_of_the_product_by_hand():
    up, down = math.exp(0.2), math.exp(0.05)
    loss, grad = two_episodes(importance="product", normalise="sequence", high=0.3)
    assert loss == pytest.approx((-up + down) / 2)
    assert grad == pytest.approx([-up / 2, -up / 2, down / 2])  # unlike the mean, not divided by the length


def test_token_importance_clips_one_token_only():
    loss, grad = two_episodes()
    down, up = math.exp(-0.1), math.exp(0.05)
    assert loss == pytest.approx((-1.2 - down + up) / 3)
    assert grad == pytest.approx([0.0, -down / 3, up / 3])


def test_divergence_from_the_reference(make_batch, logits_NV):
    batch = make_batch(weight_N=torch.zeros(8, dtype=torch.float64))
    part = build("objectives/clipped", kl=0.5)
    assert part.needs == {"reference"}
    assert build("objectives/clipped").needs == frozenset()
    loss, metrics = part(batch)
    delta_N = (batch.reference_logprob_N - batch.logprob_N).detach()
    assert metrics["reference_kl"] == pytest.approx((delta_N.exp() - delta_N - 1).mean().item())
    assert loss.item() == pytest.approx(0.5 * metrics["reference_kl"])
    (grad,) = torch.autograd.grad(loss, batch.logprob_N)
    torch.testing.assert_close(grad, 0.5 / 8 * (1 - delta_N.exp()))
    with pytest.raises(PartError, match=r"kl=0.5 but the batch has no reference"):
        part(make_batch(reference_logprob_N=None))


def test_group_without_signal_has_no_gradient(make_batch, logits_NV):
    weight_S = build("credit/group")([0.1, 0.1, 0.1])
    batch = make_batch(weight_N=torch.tensor(weight_S)[make_batch().sequence_N])
    loss, _ = build("objectives/clipped")(batch)
    assert (torch.autograd.grad(loss, logits_NV)[0] == 0).all()


def test_entropy_is_reported_where_given(make_batch):
    assert "entropy" not in build("objectives/clipped")(make_batch())[1]
    metrics = build("objectives/clipped")(make_batch(entropy_N=torch.arange(8.0)))[1]
    assert metrics["entropy"] == pytest.approx(3.5)


# -- the recipe of DemyAgent, and what it is without its switches ---------------------------------------------------


@pytest.mark.exact(124)
def test_with_the_switches_off_it_is_vanilla_grpo(make_batch, logits_NV):
    batch = make_batch()
    ratio_N = (batch.logprob_N - batch.old_logprob_N).exp()
    loss_N = -torch.minimum(ratio_N * batch.weight_N, ratio_N.clamp(0.8, 1.2) * batch.weight_N)
    vanilla = torch.stack([loss_N[batch.sequence_N == s].mean() for s in range(3)]).mean()
    loss, _ = build("objectives/clipped", low=0.2, high=0.2, normalise="sequence")(batch)
    assert loss.item() == pytest.approx(vanilla.item(), abs=1e-12)
    gradients = [torch.autograd.grad(each, logits_NV, retain_graph=True)[0] for each in (loss, vanilla)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    on, _ = build("objectives/clipped", low=0.2, high=0.28, normalise="token")(batch)
    assert abs(on.item() - vanilla.item()) > 1e-3


@pytest.mark.exact(124)
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_groups_that_are_all_right_or_all_wrong_add_no_gradient(make_batch, logits_NV, score):
    weight = torch.from_numpy(build("credit/group")(np.full(3, score)))
    loss, _ = build("objectives/clipped", high=0.28)(make_batch(weight_N=weight[make_batch().sequence_N]))
    assert (torch.autograd.grad(loss, logits_NV)[0] == 0).all()


@pytest.mark.exact(119)
def test_on_policy_the_ratio_is_one_and_nothing_is_clipped(make_batch):
    batch = make_batch()
    batch.old_logprob_N = batch.logprob_N.detach()
    _, metrics = build("objectives/clipped", low=0.0, high=0.0)(batch)
    assert (metrics["ratio"], metrics["clipped"], metrics["old_kl"]) == (1.0, 0.0, 0.0)


# -- estimates of the divergence, and the entropy bonus -------------------------------------------------------------


@pytest.mark.parametrize("estimate", ["k1", "k2"])
def test_estimates_of_the_divergence_by_hand(make_batch, logits_NV, estimate):
    batch = make_batch()
    batch.old_logprob_N = batch.logprob_N.detach()
    loss, metrics = build("objectives/clipped", kl=0.3, estimate=estimate)(batch)
    away_N = (batch.logprob_N - batch.reference_logprob_N).detach()
    plain = -(batch.weight_N * batch.logprob_N).mean()  # its gradient at ratio 1
    expected = plain + (0.3 * away_N * batch.logprob_N).mean()  # of both: kl d grad log pi
    gradients = [torch.autograd.grad(each, logits_NV, retain_graph=True)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert metrics["reference_kl"] == build("objectives/clipped", kl=0.3)(batch)[1]["reference_kl"]


def test_entropy_bonus_by_hand(make_batch, logits_NV):
    all_NV = logits_NV.log_softmax(-1)
    batch = make_batch(entropy_N=-(all_NV.exp() * all_NV).sum(-1))
    plain, bonus = (build("objectives/clipped", entropy=e)(batch)[0] for e in (0.0, 0.2))
    assert bonus.item() == pytest.approx(plain.item() - 0.2 * batch.entropy_N.mean().item())
    (up,) = torch.autograd.grad(plain - bonus, logits_NV, retain_graph=True)
    (steepest,) = torch.autograd.grad(batch.entropy_N.mean(), logits_NV)
    torch.testing.assert_close(up, 0.2 * steepest)


def test_what_the_settings_need(make_batch):
    assert build("objectives/clipped", kl=0.1, entropy=0.1).needs == {"reference", "entropy"}
    with pytest.raises(PartError, match=r"entropy=0.1 but the batch has no entropies"):
        build("objectives/clipped", entropy=0.1)(make_batch())
    with pytest.raises(PartError, match=r"estimate='k4'"):
        build("objectives/clipped", estimate="k4")
