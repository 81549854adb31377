"""training/evolution: noise from seeds, and updates that a log of seeds and scores can repeat."""

import math

import pytest
import torch

from etude.core.errors import CheckpointError, PartError
from etude.training import checkpoint
from etude.training.evolution import Evolution
from etude.training.learner import load_weights
from etude.weights import full, lora

from .conftest import flat

SEEDS = [11, 12, 13, 14]
SCORES = [0.5, 1.0, 0.0, 0.25]


@pytest.fixture
def evolution(load_policy):
    return lambda weights=None, **settings: Evolution(load_policy(), weights=weights or full(), sigma=0.01, **settings)


@pytest.mark.exact(104)
def test_a_member_leaves_nothing_behind(evolution):
    one = evolution()
    before, version = flat(one.policy.model), one.policy.version
    one.perturb(3)
    moved = flat(one.policy.model) - before
    assert moved.std().item() == pytest.approx(0.01, rel=0.05)
    assert one.policy.version > version, "what was kept of the old weights is not valid"
    one.restore()
    assert torch.equal(flat(one.policy.model), before)


@pytest.mark.exact(104)
def test_the_update_by_noise_drawn_again_is_that_of_noise_that_was_kept(evolution):
    one = evolution(lr=0.1)
    kept = [list(one._noise(seed)) for seed in SEEDS]
    mean, N = sum(SCORES) / 4, 4
    std = math.sqrt(sum((r - mean) ** 2 for r in SCORES) / N)
    expected = [m.clone() for m in one.masters]
    for noise, r in zip(kept, SCORES, strict=True):
        for master, eps in zip(expected, noise, strict=True):
            master.add_(eps, alpha=0.1 / N * (r - mean) / std)
    one.update(SEEDS, SCORES)
    assert all(torch.equal(a, b) for a, b in zip(one.masters, expected, strict=True))
    assert torch.equal(flat(one.policy.model), torch.cat([m.flatten() for m in expected]))


@pytest.mark.exact(104)
def test_the_log_rebuilds_the_weights_to_the_last_bit(evolution):
    one, other = evolution(), evolution()
    for step in range(3):
        one.perturb(step)  # what is played in between changes nothing
        one.update([s + step for s in SEEDS], SCORES[step:] + SCORES[:step])
    assert not torch.equal(flat(one.policy.model), flat(other.policy.model))
    other.replay(one.log)
    assert torch.equal(flat(one.policy.model), flat(other.policy.model))
    assert other.log == one.log


@pytest.mark.exact(104)
@pytest.mark.parametrize("scores", [[0.3, 0.3, 0.3, 0.3], [math.nan] * 4, [math.nan, 0.1, math.nan, math.nan]])
def test_scores_that_say_nothing_move_nothing(evolution, scores):
    one = evolution()
    before = flat(one.policy.model)
    one.update(SEEDS, scores)
    assert torch.equal(flat(one.policy.model), before)


def test_a_member_without_a_score_is_left_out(evolution):
    one, other = evolution(), evolution()
    one.update(SEEDS, [*SCORES[:3], math.nan])
    other.update(SEEDS[:3], SCORES[:3])
    assert torch.equal(flat(one.policy.model), flat(other.policy.model))


@pytest.mark.exact(104)
def test_no_graph_and_no_gradient(evolution):
    one = evolution()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: pytest.fail("a graph was built"), lambda x: x):
        one.perturb(1)
        one.update(SEEDS, SCORES)
    assert all(p.grad is None and p.grad_fn is None for p in one.policy.model.parameters())


def test_adapters_alone_move(evolution):
    one = evolution(lora(rank=2))
    frozen = [(p, p.clone()) for p in one.policy.model.parameters() if not p.requires_grad]
    one.update(SEEDS, SCORES)
    assert frozen
    assert all(torch.equal(p, before) for p, before in frozen)


def test_bfloat16_keeps_moves_below_its_resolution(load_policy):
    one = Evolution(load_policy(dtype="bfloat16"), weights=full(), lr=1e-6)
    before = [m.clone() for m in one.masters]
    one.update(SEEDS, SCORES)
    assert any((m - b).abs().max() > 0 for m, b in zip(one.masters, before, strict=True))


def test_a_checkpoint_holds_weights_and_log(evolution, tmp_path):
    one, other = evolution(), evolution()
    one.update(SEEDS, SCORES)
    checkpoint.save(one, tmp_path, "a")
    checkpoint.load(other, tmp_path, "a")
    assert other.log == one.log
    assert other.policy.version == one.policy.version
    for each in (one, other):
        each.update(SEEDS, SCORES[::-1])
    assert torch.equal(flat(one.policy.model), flat(other.policy.model))
    third = evolution().policy
    load_weights(third, full(), tmp_path / "a")  # as a later stage does
    assert not torch.equal(flat(third.model), flat(other.policy.model))
    with pytest.raises(CheckpointError, match="other weights"):
        checkpoint.load(evolution(lora(rank=2)), tmp_path, "a")


def test_sigma_is_above_zero(load_policy):
    with pytest.raises(PartError, match="sigma=0 must be above 0"):
        Evolution(load_policy(), weights=full(), sigma=0)
