"""What must hold for every objective on the shelf; new ones are found, not listed."""

import dataclasses

import pytest
import torch

from etude.core import parts
from etude.objectives.preference import LOSSES

NAMES = sorted(parts.find("objectives"))
CASES = [(name, {}) for name in NAMES] + [
    (name, {"normalise": normalise})
    for name in NAMES
    if "normalise" in parts.schema(f"objectives/{name}")
    for normalise in ("token", "sequence", "constant")
]
CASES += [("preference", {"loss": loss}) for loss in LOSSES]
CASES += [("gflownet", {"loss": "balance"})]


@pytest.fixture(params=CASES, ids=str)
def objective(request):
    name, settings = request.param
    return parts.build(f"objectives/{name}", **settings)


def gradient(loss, logits_NV):
    return torch.autograd.grad(loss, logits_NV)[0]


def test_micro_batches_add_up(objective, make_batch, logits_NV):
    whole = objective(make_batch())[0]
    split = [objective(make_batch(keep))[0] for keep in ((0, 2), (1,))]
    torch.testing.assert_close(sum(split), whole)
    torch.testing.assert_close(gradient(sum(split), logits_NV), gradient(whole, logits_NV))
    assert gradient(objective(make_batch())[0], logits_NV).abs().sum() > 0


def test_zero_weight_is_zero_gradient(objective, make_batch, logits_NV):
    batch = make_batch(weight_N=torch.zeros(8, dtype=torch.float64))
    assert (gradient(objective(batch)[0], logits_NV) == 0).all()


def test_only_weighted_tokens_move(objective, make_batch, logits_NV):
    weight_N = torch.tensor([1.0, 0, 1, 0, 0, 0, -1, -1], dtype=torch.float64)
    batch = make_batch(weight_N=weight_N)
    batch.old_logprob_N = batch.logprob_N.detach()
    moved_N = gradient(objective(batch)[0], logits_NV).abs().sum(-1) > 0
    assert moved_N.tolist() == (weight_N != 0).tolist()


def test_gradient_is_linear_in_the_weights(objective, make_batch, logits_NV):
    weight_N = make_batch().weight_N
    once = gradient(objective(make_batch())[0], logits_NV)
    thrice = gradient(objective(make_batch(weight_N=3 * weight_N))[0], logits_NV)
    torch.testing.assert_close(thrice, 3 * once)


def test_order_of_tokens_does_not_matter(objective, make_batch, logits_NV):
    batch = make_batch()
    order_N = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    shuffled = {n: v[order_N] for n, v in vars(batch).items() if n.endswith("_N") and v is not None}
    mixed = dataclasses.replace(batch, **shuffled)
    torch.testing.assert_close(
        gradient(objective(mixed)[0], logits_NV), gradient(objective(make_batch())[0], logits_NV)
    )


def test_metrics_are_plain_finite_numbers(objective, make_batch):
    _, metrics = objective(make_batch())
    assert metrics
    assert all(isinstance(v, float) and abs(v) < float("inf") for v in metrics.values())
