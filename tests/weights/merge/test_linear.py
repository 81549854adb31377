import pytest
import torch

from etude.core.errors import MergeError
from etude.weights.merge import linear

A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]])


def test_by_hand():
    assert linear(None, [A, B], "w").tolist() == [[2.0, 0.0]]
    assert linear(None, [A, B], "w", weights=[3.0, 1.0]).tolist() == [[1.5, 1.0]]  # (3 + 3) / 4, (6 - 2) / 4


def test_equal_models_give_themselves():
    tensor = torch.randn(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(linear(None, [tensor] * 3, "w", weights=[0.2, 0.5, 0.9]), tensor)


def test_the_base_is_not_averaged():
    assert torch.equal(linear(torch.full((1, 2), 9.0), [A, B], "w"), linear(None, [A, B], "w"))


def test_weights_that_cancel_are_refused():
    with pytest.raises(MergeError, match=r"weights \[1, -1\] sum to 0"):
        linear(None, [A, B], "w", weights=[1, -1])
