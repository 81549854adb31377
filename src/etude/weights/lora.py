"""Low-rank adapters, through PEFT.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685:  W x + (alpha / r) B A x.
Departures: none; B starts at zero, so the adapted model starts as the base model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.core.errors import missing_extra
from etude.core.parts import part

if TYPE_CHECKING:
    import torch


@part
@dataclass(frozen=True)
class lora:
    """Adapters on every linear layer; the base stays frozen."""

    rank: int = 16
    """Inner dimension r."""
    alpha: float = 32.0
    """Scale; the update is multiplied by alpha / rank."""
    targets: str | list[str] = "all-linear"
    """Module names, or `all-linear` for all but the output head."""
    seed: int = 0
    """Of the random start of A."""

    def prepare(self, model: "torch.nn.Module") -> "torch.nn.Module":
        """See protocols.Weights. Raises MissingExtra when peft is absent."""
        try:
            import torch
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise missing_extra("local", error.name or "peft") from error
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=self.targets, task_type="CAUSAL_LM")  # type: ignore[arg-type]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return get_peft_model(model, config, autocast_adapter_dtype=False)  # type: ignore[arg-type]
