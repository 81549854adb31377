"""Slerp: two models, along the arc between them instead of the chord, which keeps their norm.

Shoemake 1985, "Animating rotation with quaternion curves", doi.org/10.1145/325165.325242:
    theta = sin((1 - t) W) / sin(W) a + sin(t W) / sin(W) b,   W = the angle between a and b
Departures: each tensor, taken as one vector, has an angle of its own. Where |cos W| > 0.9995 the arc is a chord, or
has no direction, and a and b are interpolated linearly, as in mergekit's `slerp`. So they are where one of them is
zero and there is no angle; mergekit takes a right angle there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etude.core.errors import MergeError
from etude.core.parts import part
from etude.weights.merge.base import check_fraction

if TYPE_CHECKING:
    import torch

STRAIGHT = 0.9995  # |cosine| above which sin(W) is too small to divide by


@part
def slerp(
    base: "torch.Tensor | None", tensors: "Sequence[torch.Tensor]", name: str, *, t: float = 0.5
) -> "torch.Tensor":
    """See protocols.Merge. The base is not used.

    t: where on the arc, from 0, the first model, to 1, the second.

    Raises MergeError for another number of models than two.
    """
    import torch

    check_fraction("slerp", "t", t)
    if len(tensors) != 2:
        raise MergeError(f"weights/merge/slerp goes from one model to another and was given {len(tensors)}; give two")
    a, b = tensors
    norms = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
    if min(norms) == 0:
        return torch.lerp(a, b, t)
    cosine = ((a / norms[0]) * (b / norms[1])).sum()
    if cosine.abs() > STRAIGHT:
        return torch.lerp(a, b, t)
    angle = cosine.acos()
    return torch.sin((1 - t) * angle) / angle.sin() * a + torch.sin(t * angle) / angle.sin() * b
