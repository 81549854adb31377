"""AdamW's step, fused against foreach, on float32 tensors of SmolLM2-135M's shapes: `python benchmarks/optimiser.py`.

The two take turns on the same parameters and gradients, so what else the machine does slows both.
"""

import statistics
import time

import torch

REPEATS, HIDDEN, KEYS, INNER, LAYERS, WORDS = 5, 576, 192, 1536, 30, 49152
LAYER = [(HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN)]  # attention
LAYER += [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER), (HIDDEN,), (HIDDEN,)]
SHAPES = [(WORDS, HIDDEN), *LAYER * LAYERS, (HIDDEN,)]

parameters = [torch.randn(shape) for shape in SHAPES]
for parameter in parameters:
    parameter.grad = torch.randn_like(parameter)
kinds = ("foreach", "fused")
optimisers = {kind: torch.optim.AdamW(parameters, betas=(0.9, 0.95), **{kind: True}) for kind in kinds}
seconds = {kind: [] for kind in kinds}
for _ in range(1 + REPEATS):  # the first makes the optimiser's state
    for kind, optimiser in optimisers.items():
        begun = time.monotonic()
        optimiser.step()
        seconds[kind].append(time.monotonic() - begun)
ratios = [slow / fast for slow, fast in zip(*(seconds[kind][1:] for kind in kinds), strict=True)]
size, threads = sum(p.numel() for p in parameters) / 1e6, torch.get_num_threads()
spread = f"{min(ratios):.1f} to {max(ratios):.1f} over {REPEATS} pairs"
print(
    f"{size:.0f}M parameters, {threads} threads: fused takes 1/{statistics.median(ratios):.1f} of the time ({spread})"
)
