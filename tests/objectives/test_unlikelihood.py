"""objectives/unlikelihood: the sign of a weight says what to say and what not to say."""

import math

import pytest
import torch

from etude.core.parts import build


def alone(make_batch, p, weight, **settings):
    """Loss and its gradient by the log-probability, of one token of probability p."""
    logprob_N = torch.full((8,), math.log(p), dtype=torch.float64, requires_grad=True)
    weight_N = torch.zeros(8, dtype=torch.float64)
    weight_N[0] = weight
    loss, metrics = build("objectives/unlikelihood", **settings)(make_batch(logprob_N=logprob_N, weight_N=weight_N))
    return 8 * loss.item(), 8 * torch.autograd.grad(loss, logprob_N)[0][0].item(), metrics


def test_by_hand(make_batch):
    assert alone(make_batch, 0.25, 2.0)[:2] == pytest.approx((-2 * math.log(0.25), -2.0))
    loss, gradient, metrics = alone(make_batch, 0.25, -2.0, alpha=0.5)
    assert loss == pytest.approx(-math.log(0.75))
    assert gradient == pytest.approx(0.25 / 0.75)  # d/dl -log(1 - e^l) = p / (1 - p)
    assert metrics["bad"] == pytest.approx(0.25)


def test_a_bad_token_that_is_improbable_pushes_no_longer(make_batch):
    assert alone(make_batch, 1e-9, -1.0)[1] == pytest.approx(1e-9, rel=1e-3)
    assert math.isfinite(alone(make_batch, 1.0, -1.0)[0])


def test_without_bad_tokens_it_is_likelihood(make_batch, logits_NV):
    weight_N = make_batch().weight_N.abs()
    losses = [build(f"objectives/{name}")(make_batch(weight_N=weight_N))[0] for name in ("unlikelihood", "likelihood")]
    assert losses[0].item() == pytest.approx(losses[1].item())
