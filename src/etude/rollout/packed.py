"""Linear layers with their weights laid out once for the processor, instead of at every product.

oneDNN computes a product of few rows up to twice as fast from weights in its own layout, to the same bits. The copy is
as large as the weights.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch

TYPES = (torch.float32, torch.bfloat16)


class Packed:
    """The linear layers of a model; inside `with packed.used():` they compute from packed weights, without gradient."""

    def __init__(self, model: torch.nn.Module):
        there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        # only layers that are nothing but linear: a subclass may do more
        linears = [m for m in model.modules() if type(m) is torch.nn.Linear] if there else []
        self._linears = [m for m in linears if m.weight.device.type == "cpu" and m.weight.dtype in TYPES]
        self._forwards: list[Callable[[torch.Tensor], torch.Tensor]] = []

    def forget(self) -> None:
        """The weights changed. An optimiser's fused step leaves no trace by which that could be seen."""
        self._forwards = []

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        self._forwards = self._forwards or [_packed(linear) for linear in self._linears]
        try:
            for linear, forward in zip(self._linears, self._forwards, strict=True):
                vars(linear)["forward"] = forward  # goes before its class's
            yield
        finally:
            for linear in self._linears:
                vars(linear).pop("forward", None)


def _packed(linear: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    product, bias = torch.ops.mkldnn._linear_pointwise, linear.bias
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
    return lambda x: product(x, weight, bias, "none", [], "")
