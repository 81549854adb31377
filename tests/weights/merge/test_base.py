import pytest
import torch

from etude.core.errors import MergeError
from etude.core.parts import find
from etude.weights.merge import breadcrumbs, dare, linear, slerp, task_arithmetic, ties
from etude.weights.merge.base import elected_mean, without_tails

BASE = torch.tensor([1.0, 1.0, 1.0, 1.0])


def test_tails_by_hand():
    tensor = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    assert without_tails(tensor, 1, 0).tolist() == [[3.0, -1.0], [0.0, -4.0]]
    assert without_tails(tensor, 0, 1).tolist() == [[3.0, -1.0], [0.5, 0.0]]
    assert without_tails(tensor, 2, 1).tolist() == [[3.0, 0.0], [0.0, 0.0]]
    assert without_tails(tensor, 3, 1).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert torch.equal(without_tails(tensor, 0, 0), tensor)
    assert without_tails(torch.zeros(0), 0, 0).shape == (0,)


def test_equal_magnitudes_share_their_fate():
    assert without_tails(torch.tensor([1.0, -1.0, 2.0, 1.0]), 2, 0).tolist() == [1.0, -1.0, 2.0, 1.0]


def test_the_elected_mean_by_hand():
    delta_M = torch.tensor([[2.0, -1.0, 1.0, 0.0], [4.0, 3.0, -1.0, 0.0]])
    # entry 0: both agree; 1: the sum 2 is positive, only the 3 agrees; 2: the sum is 0; 3: nothing moved
    assert elected_mean(delta_M, torch.ones(2, 1), "ties").tolist() == [3.0, 3.0, 0.0, 0.0]
    # with weights 4 and 1 the sums are 12, -1 and 3: the first model wins entries 1 and 2
    weight_M = torch.tensor([[4.0], [1.0]])
    assert elected_mean(delta_M, weight_M, "ties").tolist() == pytest.approx([12 / 5, -1.0, 1.0, 0.0])


@pytest.mark.parametrize("method", [breadcrumbs, dare, linear, task_arithmetic, ties])
def test_the_number_of_weights_is_that_of_the_models(method):
    with pytest.raises(MergeError, match=r"2 weights \[0.5, 0.5\] for 3 models; give one each, without the base"):
        method(BASE, [BASE] * 3, "w", weights=[0.5, 0.5])


@pytest.mark.parametrize("method", [breadcrumbs, dare, task_arithmetic, ties])
def test_a_base_is_asked_for(method):
    with pytest.raises(MergeError, match=rf"weights/merge/{method.__name__} adds up .*\(--base BASE\)"):
        method(None, [BASE, BASE], "w")


@pytest.mark.parametrize(
    ("method", "setting"),
    [(breadcrumbs, "beta"), (breadcrumbs, "gamma"), (dare, "density"), (ties, "density"), (slerp, "t")],
)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_fraction_is_one(method, setting, value):
    with pytest.raises(
        MergeError, match=rf"weights/merge/{method.__name__}: {setting} {value!r} is not a number from 0"
    ):
        method(BASE, [BASE, BASE], "w", **{setting: value})


@pytest.mark.parametrize(("method", "settings"), [(ties, {}), (dare, {"elect": True})])
def test_signs_are_not_elected_by_negative_weights(method, settings):
    with pytest.raises(MergeError, match=r"weight -0\.5 is negative"):
        method(BASE, [BASE, BASE], "w", weights=[1.0, -0.5], **settings)


@pytest.mark.parametrize("name", find("weights/merge"))
def test_no_method_changes_its_inputs_and_all_keep_the_shape(name):
    from etude.core.parts import build

    base, *tensors = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = [tensor.clone() for tensor in (base, *tensors)]
    merged = build(f"weights/merge/{name}")(base, tensors, "w")
    assert (merged.shape, merged.dtype) == ((4, 5), torch.float32)
    assert all(map(torch.equal, before, (base, *tensors)))
    equal = build(f"weights/merge/{name}")(base, [base, base], "w")  # nothing was learnt, so nothing is merged
    torch.testing.assert_close(equal, base)
    scalar = build(f"weights/merge/{name}")(torch.tensor(1.0), [torch.tensor(2.0)] * 2, "w")
    assert scalar.shape == ()
