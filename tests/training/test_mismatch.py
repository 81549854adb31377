"""Sampler and learner: how far apart they are, and weights and ratios corrected by it, worked out by hand."""

import math

import numpy as np
import pytest
import torch

from etude.core.errors import PartError
from etude.objectives import clipped
from etude.protocols import Batch
from etude.training.learner import Learner, Row, rows
from etude.training.mismatch import Mismatch

from .conftest import Gradients, tree

SAMPLER_N = np.array([-1, -1, np.nan, -2], np.float32)
LEARNER_N = np.array([-1 + math.log(1.5), -1 + math.log(4), -3, -2 - math.log(2)], np.float32)
ROW = Row(np.arange(5), np.arange(5) > 0, np.array([1, -2, 3, 4], np.float32), SAMPLER_N, episode=0, length=4, group=0)


@pytest.mark.parametrize(
    ("correction", "weight_N", "old_N"),
    [
        ("none", [1, -2, 3, 4], SAMPLER_N),
        ("recompute", [1, -2, 3, 4], LEARNER_N),
        ("truncate", [1.5, -4, 3, 2], LEARNER_N),  # ratios 1.5, 4 cut at 2, none, 1 / 2
    ],
)
def test_by_hand(correction, weight_N, old_N):
    mismatch = Mismatch(correction, 2.0)
    row = mismatch.correct(ROW, LEARNER_N)
    np.testing.assert_allclose(row.weight_N, weight_N, rtol=1e-6)
    np.testing.assert_array_equal(row.old_logprob_N, old_N)
    assert row.weight_N.dtype == row.old_logprob_N.dtype == np.float32
    expected = {
        "sampler_log_ratio": math.log(1.5 * 4 / 2) / 3,
        "sampler_kl": ((1.5 + 4 + 0.5) - 3 - math.log(3)) / 3,
        "sampler_gap_max": math.log(4),
    }
    expected |= {"sampler_truncated": 1 / 3} if correction == "truncate" else {}
    assert mismatch.figures() == pytest.approx(expected, abs=1e-6)


def test_where_nothing_was_recorded_there_is_nothing_to_tell():
    mismatch = Mismatch("truncate", 2.0)
    mismatch.correct(Row(ROW.ids_P, ROW.mask_P, ROW.weight_N, np.full(4, np.nan), 0, 4, 0), LEARNER_N)
    assert mismatch.figures() == {}


class Kept:
    """An objective that keeps what it is given, and moves the weights far."""

    needs = frozenset()

    def __init__(self):
        self.batches: list[Batch] = []

    def __call__(self, batch: Batch):
        self.batches.append(batch)
        return -(batch.logprob_N * batch.weight_N).sum() / batch.tokens, {}

    def of(self, name: str, calls: slice) -> torch.Tensor:
        return torch.cat([getattr(batch, name).detach() for batch in self.batches[calls]])


def test_later_updates_keep_what_held_before_the_first_and_no_pass_is_spent_on_it(policy, dialogues, monkeypatch):
    objective, passes, logprob = Kept(), [], policy.logprob
    monkeypatch.setattr(policy, "logprob", lambda *a, **k: passes.append(1) or logprob(*a, **k))
    learner = Learner(policy, objective, lr=1e-2, micro_tokens=60, correction="truncate", truncation=1.5)
    given = {r.ids_P.tobytes(): r.weight_N.sum() for r in rows(dialogues)}
    figures = learner.step(dialogues, updates=2)
    half = len(objective.batches) // 2
    assert len(passes) == len(objective.batches) == 2 * half > 2
    first, second = slice(0, half), slice(half, None)
    torch.testing.assert_close(objective.of("old_logprob_N", first), objective.of("logprob_N", first), rtol=0, atol=0)
    for name in ("old_logprob_N", "weight_N"):
        torch.testing.assert_close(objective.of(name, second), objective.of(name, first), rtol=0, atol=0)
    assert (objective.of("logprob_N", second) - objective.of("logprob_N", first)).abs().max() > 0.01
    ratio_N = (objective.of("logprob_N", first) - -4.0).exp().clamp(max=1.5)  # all were sampled at -4
    assert (objective.of("weight_N", first) / ratio_N).sum() == pytest.approx(4 * 1 + 2 * 0.5 - 7 * 0.5 - 6 - 3 * 1.5)
    assert len(given) == 6
    assert 0 < figures["sampler_truncated"] < 1
    assert learner.done == 2


def test_without_a_correction_the_ratio_is_to_the_sampler(policy, dialogues):
    objective = Kept()
    Learner(policy, objective, lr=1e-2).step(dialogues, updates=2)
    assert objective.of("old_logprob_N", slice(None)).tolist() == [-4.0] * 2 * 34


def test_the_gradient_is_that_of_the_corrected_weights(policy):
    shape = {0: (None, 6, False), 1: (0, 9, True)}
    trajectory, by_hand = (tree(shape, [1], logprob=-5.0) for _ in range(2))
    trajectory.weigh([1.0])
    by_hand.weigh([1.0])
    got, _ = Gradients(Learner(policy, clipped(), correction="truncate")).of([trajectory])
    with torch.no_grad():
        seen = Kept()
        learner = Learner(policy, seen)
        now_T = learner._batch([t for unit in learner._units(rows([by_hand])) for t in unit], rows([by_hand]), 9, None)
    now_T = now_T.logprob_N.numpy()
    by_hand.nodes[1].weight_T, by_hand.nodes[1].logprob_T = np.minimum(np.exp(now_T + 5.0), 2.0), now_T
    expected, _ = Gradients(Learner(policy, clipped())).of([by_hand])
    assert len({*by_hand.nodes[1].weight_T.tolist()}) > 2
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"correction": "trunkate"}, "correction='trunkate'; did you mean 'truncate'"),
        ({"truncation": 0.5}, "truncation=0.5 cuts tokens on which both agree"),
    ],
)
def test_settings_that_mean_nothing_are_refused(policy, settings, told):
    with pytest.raises(PartError, match=told):
        Learner(policy, clipped(), **settings)
