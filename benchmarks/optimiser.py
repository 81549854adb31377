"""AdamW's step, fused against foreach, on float32 tensors of SmolLM2-135M's shapes.

The two take turns on the same parameters and gradients, so what else the machine does slows both.
"""

import bench
import torch

ROUNDS, HIDDEN, KEYS, INNER, LAYERS, WORDS = 5, 576, 192, 1536, 30, 49152
if bench.QUICK:
    ROUNDS, LAYERS, WORDS = 1, 1, 512
LAYER = [(HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN)]  # attention
LAYER += [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER), (HIDDEN,), (HIDDEN,)]
SHAPES = [(WORDS, HIDDEN), *LAYER * LAYERS, (HIDDEN,)]

parameters = [torch.randn(shape) for shape in SHAPES]
for parameter in parameters:
    parameter.grad = torch.randn_like(parameter)
kinds = ("foreach", "fused")
sides = {k: bench.clock(torch.optim.AdamW(parameters, betas=(0.9, 0.95), **{k: True}).step) for k in kinds}
seconds = bench.interleave(sides, ROUNDS)  # the round to warm up makes the optimiser's state
size = sum(p.numel() for p in parameters) / 1e6
faster = bench.ratios(seconds["foreach"], seconds["fused"])
bench.report([bench.figure(f"fused against foreach, {size:.0f}M parameters", faster)])
