import pytest
import torch

from etude.core.errors import MergeError
from etude.weights.merge import dare, task_arithmetic, ties

BASE, *MODELS = torch.randn(3, 100, 100, generator=torch.Generator().manual_seed(0))


def test_what_is_kept_is_rescaled_and_the_rest_is_the_base():
    merged = dare(BASE, MODELS[:1], "w", density=0.25)
    kept = merged != BASE
    assert kept.float().mean().item() == pytest.approx(0.25, abs=0.02)  # 10,000 draws: a standard error of 0.004
    torch.testing.assert_close(merged[kept], (BASE + (MODELS[0] - BASE) / 0.25)[kept])


def test_by_hand():
    # one entry is kept as 1 / 0.5 of its task vector, or not at all; both models' draws add up to one of these
    found = {dare(torch.zeros(1), [torch.ones(1), 3 * torch.ones(1)], f"{i}", density=0.5).item() for i in range(40)}
    assert found == {0.0, 2.0, 6.0, 8.0}
    opposed = [torch.ones(1), -3 * torch.ones(1)]
    found = {dare(torch.zeros(1), opposed, f"{i}", density=0.5, elect=True).item() for i in range(40)}
    assert found == {0.0, 2.0, -6.0}  # where both are kept the larger one has the sign


def test_nothing_dropped_is_task_arithmetic_or_untrimmed_ties():
    settings = {"weights": [0.3, 0.5], "scale": 0.7}
    assert torch.equal(dare(BASE, MODELS, "w", density=1.0, **settings), task_arithmetic(BASE, MODELS, "w", **settings))
    elected = dare(BASE, MODELS, "w", density=1.0, elect=True, **settings)
    assert torch.equal(elected, ties(BASE, MODELS, "w", density=1.0, **settings))


def test_the_draw_follows_from_name_model_and_seed_alone():
    first = dare(BASE, MODELS, "a")
    torch.manual_seed(5)
    dare(BASE, MODELS, "b")
    assert torch.equal(dare(BASE, MODELS, "a"), first)
    assert not torch.equal(dare(BASE, MODELS, "b"), first)
    assert not torch.equal(dare(BASE, MODELS, "a", seed=1), first)
    one, two = (dare(BASE, MODELS, "a", weights=weights) != BASE for weights in ([1.0, 0.0], [0.0, 1.0]))
    assert (one & two).float().mean().item() == pytest.approx(0.01, abs=0.005)  # 0.1 * 0.1: independent draws


def test_keeping_nothing_is_refused():
    with pytest.raises(MergeError, match="density 0 drops every entry"):
        dare(BASE, MODELS, "w", density=0.0)
