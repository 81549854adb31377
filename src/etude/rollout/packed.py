"""Linear layers with their weights laid out once for the processor, instead of at every product.

oneDNN computes a product of few rows up to twice as fast from weights in its own layout, to the same bits. The copy is
as large as the weights, is used only inside `with`, and is made again for a weight that changed.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

LAYOUTS = (torch.float32, torch.bfloat16)


class Packed:
    """The linear layers of a model; inside `with packed.used():` they compute from packed weights, without gradient."""

    def __init__(self, model: torch.nn.Module):
        there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        # only layers that are nothing but linear: a subclass may do more
        linears = [m for m in model.modules() if type(m) is torch.nn.Linear] if there else []
        self._layers = [
            _Layer(linear.weight, linear.bias, vars(linear))
            for linear in linears
            if linear.weight.device.type == "cpu" and linear.weight.dtype in LAYOUTS
        ]

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """A weight that changed since the last time is packed again."""
        try:
            for layer in self._layers:
                layer.attributes["forward"] = layer.forward()
            yield
        finally:
            for layer in self._layers:
                layer.attributes.pop("forward", None)


@dataclass
class _Layer:
    weight: torch.Tensor
    bias: torch.Tensor | None
    attributes: dict[str, Any]
    """Of the module: an own `forward` there goes before its class's."""
    state: tuple[int, int] = (0, -1)
    packed: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        state = (self.weight.data_ptr(), self.weight._version)
        if self.packed is None or self.state != state:
            product, bias = torch.ops.mkldnn._linear_pointwise, self.bias
            weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
            self.packed, self.state = lambda x: product(x, weight, bias, "none", [], ""), state
        return self.packed
