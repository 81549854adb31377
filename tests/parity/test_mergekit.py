"""etude's methods of merging against mergekit's own, in float32 to 1e-5.

mergekit is not among the development packages, because it brings many of its own. Its methods need none of them:

    pip install --no-deps --target /tmp/mergekit mergekit
    PYTHONPATH=/tmp/mergekit pytest tests/parity/test_mergekit.py

Measured with mergekit 0.1.5.
"""

import numpy as np
import pytest
import torch

from etude.weights.merge import breadcrumbs, dare, linear, slerp, task_arithmetic, ties

registry = pytest.importorskip(
    "mergekit.merge_methods.registry", reason="mergekit is not installed; this file's docstring says how"
)
WEIGHTS = [0.5, 0.3, 0.9]
BASE, *MODELS = torch.randn(4, 40, 50, generator=torch.Generator().manual_seed(0))


def mergekit(method: str, tensors: list[torch.Tensor], base: int | None = None, **settings) -> torch.Tensor:
    """mergekit's result; a list among the settings holds one value per model that is not the base."""
    from mergekit.merge_methods.base import PerInputValues, TensorGroup

    ids = [i for i in range(len(tensors)) if i != base]
    per_model = {k: PerInputValues(list(zip(ids, v, strict=True))) for k, v in settings.items() if isinstance(v, list)}
    group = TensorGroup.from_tensors(tensors, base_index=base)
    (merged,) = registry.get(method)([group], parameters=settings | per_model)
    return merged


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.dtype == theirs.dtype == torch.float32
    assert not torch.equal(ours, BASE)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_linear():
    agree(linear(None, MODELS, "w", weights=WEIGHTS), mergekit("linear", MODELS, weight=WEIGHTS))


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("other", [MODELS[1], MODELS[0] + 0.001, -MODELS[0]], ids=["apart", "collinear", "opposite"])
def test_slerp(t, other):
    agree(slerp(None, [MODELS[0], other], "w", t=t), mergekit("slerp", [MODELS[0], other], 0, t=t))


def test_task_arithmetic():
    theirs = mergekit("task_arithmetic", [BASE, *MODELS], 0, weight=WEIGHTS, **{"lambda": 0.4})
    agree(task_arithmetic(BASE, MODELS, "w", weights=WEIGHTS, scale=0.4), theirs)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties(density):
    theirs = mergekit("ties", [BASE, *MODELS], 0, weight=WEIGHTS, density=[density] * 3, **{"lambda": 0.4})
    agree(ties(BASE, MODELS, "w", density=density, weights=WEIGHTS, scale=0.4), theirs)


@pytest.mark.parametrize(("method", "elect"), [("dare_linear", False), ("dare_ties", True)])
def test_dare_with_the_same_entries_dropped(method, elect, monkeypatch):
    alone = [[float(i == m) for i in range(3)] for m in range(3)]
    masks = iter([(dare(BASE, MODELS, "w", density=0.25, weights=w) != BASE).float() for w in alone])
    monkeypatch.setattr(torch, "bernoulli", lambda probability: next(masks))
    settings = {"rescale": False, "normalize": elect, "lambda": 0.4 / 0.25}  # the paper's rescaling, as a scale
    theirs = mergekit(method, [BASE, *MODELS], 0, weight=WEIGHTS, density=[0.25] * 3, **settings)
    agree(dare(BASE, MODELS, "w", density=0.25, elect=elect, weights=WEIGHTS, scale=0.4), theirs)


@pytest.mark.parametrize(("beta", "gamma"), [(0.85, 0.99), (0.5, 1.0), (0.0, 0.98)])
def test_breadcrumbs(beta, gamma):
    count = round(1000 * gamma) - round(1000 * beta)
    settings = {"density": [count / 1000] * 3, "gamma": [1 - gamma + 1e-9] * 3, "lambda": 0.4}
    theirs = mergekit("breadcrumbs", [BASE, *MODELS], 0, weight=WEIGHTS, **settings)
    agree(breadcrumbs(BASE, MODELS, "w", beta=beta, gamma=gamma, weights=WEIGHTS, scale=0.4), theirs)
