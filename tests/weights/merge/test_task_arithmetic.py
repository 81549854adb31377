import torch

from etude.weights.merge import task_arithmetic

BASE = torch.tensor([1.0, 2.0])
A, B = torch.tensor([2.0, 2.0]), torch.tensor([1.0, 6.0])


def test_by_hand():
    # task vectors [1, 0] and [0, 4]
    assert task_arithmetic(BASE, [A, B], "w").tolist() == [2.0, 6.0]
    assert task_arithmetic(BASE, [A, B], "w", weights=[2.0, -0.25]).tolist() == [3.0, 1.0]
    assert task_arithmetic(BASE, [A, B], "w", scale=0.5).tolist() == [1.5, 4.0]


def test_one_model_with_weight_1_is_itself():
    base, model = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(task_arithmetic(base, [model], "w"), model)
