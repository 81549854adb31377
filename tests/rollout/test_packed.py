"""Packed weights give the same products, follow every change of the weights, and leave nothing behind."""

import pytest
import torch

from etude.rollout.packed import Packed

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def model(request) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 48), torch.nn.SiLU(), torch.nn.Linear(48, 32, bias=False)
    return torch.nn.Sequential(*layers).to(request.param)


def packed_and_plain(packed: Packed, model: torch.nn.Module, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(1, rows, 64, dtype=model[0].weight.dtype)
    with torch.inference_mode():
        with packed.used():
            assert "forward" in vars(model[0])
            got = model(x)
        return got, model(x)


@pytest.mark.parametrize("rows", [1, 8, 300])
def test_products_are_those_of_the_plain_layers(model, rows):
    torch.testing.assert_close(*packed_and_plain(Packed(model), model, rows))


def test_a_weight_that_changed_is_packed_again_when_told(model):
    packed = Packed(model)
    packed_and_plain(packed, model, 8)
    kept = packed._forwards
    packed_and_plain(packed, model, 8)
    assert packed._forwards is kept
    with torch.no_grad():
        model[2].weight.copy_(torch.ones_like(model[2].weight))
    packed.forget()
    torch.testing.assert_close(*packed_and_plain(packed, model, 8))


def test_outside_and_after_a_failure_the_layers_are_their_own(model):
    packed = Packed(model)
    with pytest.raises(KeyError), packed.used():
        raise KeyError
    assert not any("forward" in vars(module) for module in model)
    model(torch.randn(3, 64, dtype=model[0].weight.dtype)).sum().backward()
    assert model[0].weight.grad is not None


def test_a_layer_that_may_do_more_is_left_alone():
    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = torch.nn.Sequential(Doubled(64, 64), torch.nn.Linear(64, 64))
    packed = Packed(model)
    assert packed._linears == [model[1]]
    x = torch.randn(4, 64)
    with torch.inference_mode(), packed.used():
        got = model(x)
    torch.testing.assert_close(got, model(x))
