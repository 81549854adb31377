"""Full fine-tuning: every parameter moves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.core.parts import part

if TYPE_CHECKING:
    import torch


@part
@dataclass(frozen=True)
class full:
    """All parameters of the model."""

    def prepare(self, model: "torch.nn.Module") -> "torch.nn.Module":
        """See protocols.Weights."""
        return model.requires_grad_(True)
