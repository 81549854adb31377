import math

import pytest
import torch

from etude.core.errors import MergeError
from etude.weights.merge import slerp

A, B = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])


def test_by_hand():
    # a right angle: both coefficients are sin(45 degrees) half-way, sin(60) and sin(30) after a third
    half, third = math.sqrt(0.5), (math.sqrt(0.75), 0.5)
    assert slerp(None, [A, B], "w").tolist()[0] == pytest.approx([half, 2 * half])
    assert slerp(None, [A, B], "w", t=1 / 3).tolist()[0] == pytest.approx([third[0], 2 * third[1]])


def test_the_ends_are_the_models_and_equal_models_give_themselves():
    a, b = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slerp(None, [a, b], "w", t=0.0), a)
    torch.testing.assert_close(slerp(None, [a, b], "w", t=1.0), b)
    torch.testing.assert_close(slerp(None, [a, a], "w", t=0.3), a)


def test_the_norm_of_unit_vectors_is_kept():
    a, b = torch.nn.functional.normalize(torch.randn(2, 30, generator=torch.Generator().manual_seed(0)))
    assert slerp(None, [a, b], "w", t=0.3).norm().item() == pytest.approx(1.0)
    assert torch.lerp(a, b, 0.3).norm() < 0.9


@pytest.mark.parametrize("other", [[[-1.0, 0.0]], [[3.0, 0.0]], [[0.0, 0.0]]])
def test_without_an_arc_it_is_linear(other):
    assert (
        slerp(None, [A, torch.tensor(other)], "w", t=0.25).tolist() == torch.lerp(A, torch.tensor(other), 0.25).tolist()
    )


def test_three_models_are_refused():
    with pytest.raises(MergeError, match="was given 3; give two"):
        slerp(None, [A, A, A], "w")
