"""What a training step needs at its peak, foretold from the model's shape, and how to make it fit.

Kept for a step: the weights as they compute; float32 masters where that is not float32; a float32 gradient and AdamW's
two moments of what is trained. Then the micro-batch: what each layer keeps for backward, and the logits. Counted for
layers like Llama's (RMS norms, rotary attention that keeps no matrix of scores, a gated MLP), in bytes:

    a layer, per token    2 norms x (4 + 2 b) C  +  5 b heads D (q, k, v, out and its copy)  +  4 b I    b: of a value
    logits                12 per logit: the log-softmax, its gradient, and that of the logits; 20 more for entropy

after Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", arXiv:2205.05198.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from etude.core.errors import PartError

LEAST = 256
"""Fewest tokens that a micro-batch is cut down to."""
GIB = 2**30


@dataclass(frozen=True)
class Peak:
    """Bytes, of one process."""

    weights: float
    masters: float
    gradients: float
    moments: float
    reference: float
    activations: float
    logits: float
    """Or, where that is more, what backward needs inside one layer."""

    @property
    def total(self) -> float:
        return sum(getattr(self, f.name) for f in fields(self))


def peak(
    model: Any,
    micro_tokens: int,
    *,
    trained: int | None = None,
    checkpointing: bool = False,
    reference: bool = False,
    entropy: bool = False,
    logits_at_once: int = 2**26,
    ranks: int = 1,
) -> Peak:
    """Foretell a step of `training.Learner`, with as many micro-batches as it likes.

    model: a transformers causal LM, on any device (`meta` too); what is trained says `requires_grad`.
    micro_tokens: padded tokens of a micro-batch, all of them trained.
    trained: how many parameters are trained, where it is not as the model says.
    checkpointing: layers keep their input alone, and are computed again in backward.
    reference, entropy: the objective needs them. ranks: over which the weights are sharded.
    """
    config = model.config.get_text_config()
    C, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    D = getattr(config, "head_dim", None) or C // heads
    inner = getattr(config, "intermediate_size", None) or 4 * C
    head = model.get_output_embeddings().weight
    b, V = head.element_size(), head.shape[0]

    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total = sum(n for n, _ in sizes)
    if trained is None:
        trained = sum(n for n, moves in sizes if moves)
    layer = 2 * (4 + 2 * b) * C + 5 * b * heads * D + 4 * b * inner
    kept = (4 + 3 * b) * C + (b * C if checkpointing else layer) * layers  # first the norm behind the last layer
    within = layer * (1.5 if checkpointing else 0.5)  # backward of one layer: gradients, and what it computes again
    logits = micro_tokens * V if micro_tokens * V <= logits_at_once else logits_at_once
    if ranks > 1:  # float32 shards; whole only the outer weights and two layers, and the gradients of these
        outer = head.numel()
        gathered = b * 2 * (outer + 2 * (total - outer) / layers)
        weights, masters, gradients = 4 * total / ranks + gathered, 0.0, 4 * trained / ranks
    else:
        weights, masters = b * total, 0 if b == 4 else 4 * trained
        gradients = (4 if b == 4 else 4 + b) * trained
    return Peak(
        weights=weights,
        masters=masters,
        gradients=gradients,
        moments=8 * trained / ranks,
        reference=(b if ranks == 1 else 8 / ranks) * trained if reference else 0,
        activations=kept * micro_tokens,
        logits=max((32 if entropy else 12) * logits, within * micro_tokens),
    )


def fit(model: Any, micro_tokens: int, memory: float, **needs: Any) -> tuple[int, bool]:
    """The largest micro-batch up to `micro_tokens`, by halves, with which a step fits, and whether with checkpointing.

    memory: bytes. needs: see `peak`.

    Raises PartError where nothing fits; it says what would.
    """
    sizes = [micro_tokens]
    while sizes[-1] // 2 >= LEAST:
        sizes.append(sizes[-1] // 2)
    for checkpointing in (False, True):
        for size in sizes:
            if peak(model, size, checkpointing=checkpointing, **needs).total <= memory:
                return size, checkpointing
    least = peak(model, sizes[-1], checkpointing=True, **needs).total
    ways = [f"{least / GIB:.3g} GiB"]
    adapters = peak(model, sizes[-1], checkpointing=True, **{**needs, "trained": 0}).total
    if adapters <= memory:
        ways.append("weights: lora")
    sharded = {n: peak(model, sizes[-1], checkpointing=True, **{**needs, "ranks": n}).total for n in (2, 4, 8, 16)}
    ways += [f"{n} processes with learner: shard" for n, bytes_ in sharded.items() if bytes_ <= memory][:1]
    raise PartError(
        f"learner: a step with micro_tokens={sizes[-1]} and checkpointing needs {least / GIB:.3g} GiB, and memory is "
        f"{memory / GIB:.3g} GiB; what would fit: {', or '.join(ways)}"
    )


def available(model: Any) -> float:
    """Bytes that training may use: what is free where the model lies, and what it takes up already."""
    weights = list(model.parameters())
    held, device = sum(p.numel() * p.element_size() for p in weights), weights[0].device
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused + held
    import psutil

    free, limit = psutil.virtual_memory().available, Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():  # of a container
        free = min(free, int(text) - psutil.Process().memory_info().rss)
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", 1)) + held


@contextlib.contextmanager
def checkpointed(layers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Within this block the layers keep their input alone, and backward computes the rest again.

    Not `gradient_checkpointing_enable` of transformers, which works in training mode alone, where dropout is on.
    """
    from torch.utils.checkpoint import checkpoint

    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
