import pytest
import torch

from etude.core.errors import MergeError
from etude.weights.merge import breadcrumbs, task_arithmetic

BASE, *MODELS = torch.randn(4, 40, 25, generator=torch.Generator().manual_seed(0))


def test_by_hand():
    base = torch.zeros(10)
    model = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0, -10.0])
    # between the percentiles 60 and 90 lie 7, -8 and 9
    expected = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.5, -4.0, 4.5, 0.0]
    assert breadcrumbs(base, [model], "w", beta=0.6, gamma=0.9, scale=0.5).tolist() == expected


@pytest.mark.exact(105)
def test_without_masks_it_is_task_arithmetic_bit_for_bit():
    settings = {"weights": [0.3, 0.5, -0.2], "scale": 0.3}
    unmasked = breadcrumbs(BASE, MODELS, "w", beta=0.0, gamma=1.0, **settings)
    assert torch.equal(unmasked, task_arithmetic(BASE, MODELS, "w", **settings))


@pytest.mark.exact(105)
@pytest.mark.parametrize(("beta", "gamma"), [(0.85, 0.99), (0.29, 1.0), (0.0, 0.993), (0.9, 0.95)])
def test_as_many_entries_are_kept_as_lie_between_the_percentiles(beta, gamma):
    kept = breadcrumbs(BASE, MODELS[:1], "w", beta=beta, gamma=gamma) != BASE
    assert kept.sum().item() == round(1000 * (gamma - beta))
    size = (MODELS[0] - BASE).abs()
    assert size[kept].min() >= size.quantile(beta)
    assert size[kept].max() <= size.quantile(gamma)


@pytest.mark.exact(105)
def test_scale_0_gives_the_base():
    assert torch.equal(breadcrumbs(BASE, MODELS, "w", scale=0.0), BASE)


@pytest.mark.exact(105)
def test_the_order_of_models_does_not_matter():
    torch.testing.assert_close(breadcrumbs(BASE, MODELS, "w"), breadcrumbs(BASE, MODELS[::-1], "w"))


def test_an_empty_band_is_refused():
    with pytest.raises(MergeError, match=r"nothing lies between beta 0\.9 and gamma 0\.9"):
        breadcrumbs(BASE, MODELS, "w", beta=0.9, gamma=0.9)
