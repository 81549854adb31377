"""objectives/dft: supervised tokens weighted by their own probability."""

import pytest
import torch

from etude.core.parts import build
from etude.protocols import Batch


@pytest.fixture
def token_batch(make_batch):
    return make_batch(weight_N=torch.ones(8, dtype=torch.float64))


def gradient(loss, logits_NV):
    return torch.autograd.grad(loss, logits_NV, retain_graph=True)[0]


@pytest.mark.exact(135)
def test_gradient_is_that_of_minus_the_mean_probability(token_batch, logits_NV):
    loss, _ = build("objectives/dft")(token_batch)
    expected = gradient(-token_batch.logprob_N.exp().mean(), logits_NV)
    torch.testing.assert_close(gradient(loss, logits_NV), expected, rtol=1e-6, atol=1e-9)
    assert expected.abs().max() > 1e-3


@pytest.mark.exact(135)
def test_token_gradient_is_p_times_that_of_sft(token_batch, logits_NV):
    p_N = token_batch.logprob_N.detach().exp()
    sft = gradient(build("objectives/likelihood")(token_batch)[0], logits_NV)
    dft = gradient(build("objectives/dft")(token_batch)[0], logits_NV)
    torch.testing.assert_close(dft, p_N[:, None] * sft, rtol=1e-6, atol=1e-9)
    half = gradient(build("objectives/dft", gamma=0.5)(token_batch)[0], logits_NV)
    torch.testing.assert_close(half, p_N[:, None].sqrt() * sft, rtol=1e-6, atol=1e-9)


@pytest.mark.exact(135)
def test_gamma_zero_is_sft(token_batch, logits_NV):
    sft, dft = (
        build(path, **s)(token_batch)[0]
        for path, s in [("objectives/likelihood", {}), ("objectives/dft", {"gamma": 0.0})]
    )
    assert dft.item() == sft.item()
    torch.testing.assert_close(gradient(dft, logits_NV), gradient(sft, logits_NV), rtol=0, atol=0)


@pytest.mark.exact(135)
def test_without_the_stop_gradient_it_would_be_another(token_batch, logits_NV):
    loss, _ = build("objectives/dft")(token_batch)
    leaky = -(token_batch.logprob_N.exp() * token_batch.logprob_N).mean()
    assert leaky.item() == pytest.approx(loss.item())
    assert (gradient(loss, logits_NV) - gradient(leaky, logits_NV)).abs().max() > 1e-3


@pytest.mark.exact(135)
@pytest.mark.parametrize("logprob", [-50.0, -200.0, -1e30])
def test_finite_as_p_goes_to_zero(logprob):
    logprob_N = torch.tensor([logprob, -0.5], requires_grad=True)
    batch = Batch(
        logprob_N,
        torch.ones(2),
        logprob_N.detach(),
        torch.tensor([0, 0]),
        torch.tensor([2]),
        2,
        1,
        2,
        torch.tensor([0]),
        torch.tensor([0]),
        1,
    )
    loss, metrics = build("objectives/dft")(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert logprob_N.grad is not None
    assert logprob_N.grad[0].item() == pytest.approx(0.0, abs=1e-20)
    assert metrics["probability"] == pytest.approx(0.5 * torch.tensor(-0.5).exp().item())
