"""training/temperature: bisection, and the entropy it is about."""

import numpy as np
import pytest
import torch

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.core.parts import build
from etude.protocols import Sampling
from etude.rollout.collect import collect
from etude.training.learner import Learner, rows
from etude.training.temperature import entropy_at, find_temperature

from ..engine_fixtures import Talk


@pytest.fixture
async def played(policy):
    world = Talk(turns=2)
    return await collect(policy, world.tasks("train"), agent=native(), group=2, sampling=Sampling(12), max_turns=2)


def entropy_of(logits: torch.Tensor):
    def at(temperature: float) -> float:
        p = (logits.double() / temperature).softmax(-1)
        return float(-(p * p.clamp(min=1e-300).log()).sum(-1).mean())

    return at


@pytest.mark.exact(119)
@pytest.mark.parametrize("target", [0.1, 0.3, 1.0, 2.5])
def test_bisection_meets_the_target(target):
    at = entropy_of(3 * torch.randn(20, 40, generator=torch.Generator().manual_seed(0)))
    found = find_temperature(at, target)
    assert abs(at(found) - target) <= 0.01
    assert abs(at(find_temperature(at, target, 1e-4)) - target) <= 1e-4


def test_a_target_out_of_reach_is_told():
    with pytest.raises(PartError, match=r"practise.entropy=4 is out of reach: .* at temperature 0.05 and 0.693 at 5"):
        find_temperature(entropy_of(torch.zeros(3, 2)), 4.0)


@pytest.mark.exact(119)
async def test_the_entropy_is_that_of_what_was_sampled(policy, played):
    """Against a forward pass of each path by itself."""
    for t in played:
        t.weigh([1.0, 1.0])
    for temperature in (0.5, 1.0, 2.0):
        total, count = 0.0, 0
        for row in rows(played):
            logits = policy.model(torch.from_numpy(row.ids_P.astype(np.int64))[None]).logits[0].detach()
            logits = logits[np.flatnonzero(row.mask_P) - 1]
            total += entropy_of(logits)(temperature) * len(logits)
            count += len(logits)
        assert entropy_at(policy, played, temperature) == pytest.approx(total / count, rel=1e-4)
    found = find_temperature(lambda T: entropy_at(policy, played, T), 0.5)
    assert abs(entropy_at(policy, played, found) - 0.5) <= 0.01


@pytest.mark.exact(119)
async def test_strictly_on_policy_never_clips(policy, played):
    learner = Learner(policy, build("objectives/clipped", low=1e-3, high=1e-3))
    for t in played:
        t.weigh(np.linspace(-1, 1, len(t.episodes)))
    figures = learner.step(played)
    assert figures["gradient_norm"] > 0
    assert figures["clipped"] == 0.0
    assert figures["ratio"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.exact(119)
@pytest.mark.parametrize("length", [3, 9])
async def test_a_stage_never_says_more_than_its_length(policy, length):
    world = Talk(turns=2)
    made = await collect(policy, world.tasks("train"), agent=native(), group=4, sampling=Sampling(length), max_turns=2)
    said = [int(n.sampled_T.sum()) for t in made for n in t.nodes if n.sampled]
    assert max(said) == length
