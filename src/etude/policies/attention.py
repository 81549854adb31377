"""Attention of sequences laid out as trees (`trajectory.forest`), side by side in one row.

There is no padding, and no mask as large as the row: each run of tokens looks at its ancestors, which are beginnings of
earlier runs, and causally at itself. So what is computed is what the trees hold, forward and backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from etude.core.errors import PolicyError
from etude.trajectory.forest import Tree

ATTENTION = "etude_trees"


@dataclass(frozen=True)
class Run:
    """Tokens in a row of which each but the first follows the one before it."""

    length: int
    ancestors: list[tuple[int, int]]
    """Earlier runs on its path, with how many of their first tokens are."""
    seen_LP: torch.Tensor | None
    """bool; which of its ancestors' and its own tokens each of its tokens looks at. None: plainly causal."""


def lay_out(trees: Sequence[Tree], device: str | torch.device) -> tuple[torch.Tensor, dict[str, Any]]:
    """Ids int64 [1, N] of the trees one after the other, and the arguments by which a model reads them as trees."""
    runs: list[Run] = []
    for tree in trees:
        before = len(runs)
        for length, ancestors in tree.runs():
            shared = sum(count for _, count in ancestors)
            seen_LP = torch.ones(length, shared + length, dtype=torch.bool, device=device).tril(shared)
            runs.append(Run(length, [(before + r, n) for r, n in ancestors], seen_LP if shared else None))
    ids_N, position_N = (
        torch.from_numpy(np.concatenate([getattr(tree, name) for tree in trees]).astype(np.int64)).to(device)[None]
        for name in ("ids_L", "position_L")
    )
    unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)  # keeps the model from making a mask
    return ids_N, {"position_ids": position_N, "attention_mask": unused, "runs": runs}


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    runs: list[Run] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """query: [1, heads, N, head dim]; key, value: [1, kv heads, N, head dim] -> [1, N, heads, head dim].

    Without `runs` it is the attention of transformers. Raises PolicyError for a kind of attention that it is not.
    """
    if runs is None:
        window = {"sliding_window": sliding_window} if sliding_window else {}
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **window, **others)
    if odd := [name for name in ("softcap", "s_aux") if others.get(name) is not None]:
        raise PolicyError(f"the model's attention has {odd[0]}={others[odd[0]]}, which etude cannot compute")
    lengths = [run.length for run in runs]
    # split, because a slice's gradient is as large as what it was cut from
    queries, keys, values = (x.split(lengths, dim=2) for x in (query, key, value))
    outputs = []
    for r, run in enumerate(runs):
        k, v = keys[r], values[r]
        if run.ancestors:
            k, v = (torch.cat([*(x[a][:, :, :n] for a, n in run.ancestors), x[r]], 2) for x in (keys, values))
        seen_LP = run.seen_LP
        if sliding_window and k.shape[2] > sliding_window:
            seen_LP = torch.ones(run.length, k.shape[2], dtype=torch.bool, device=k.device)
            shared = k.shape[2] - run.length
            seen_LP = seen_LP.tril(shared).triu(shared - sliding_window + 1)
        out = functional.scaled_dot_product_attention(
            queries[r], k, v, attn_mask=seen_LP, is_causal=seen_LP is None, scale=scaling, enable_gqa=True
        )
        outputs.append(out.transpose(1, 2))
    return torch.cat(outputs, 1), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
