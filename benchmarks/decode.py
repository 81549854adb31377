"""Decoding: etude's generator against transformers' `generate`, both sampling, the prompts' own time left out.

Prompts of 256 tokens, 48 sampled tokens that nothing stops, one model object for both sides. transformers is taken as
it comes, and at the fastest of growing and static cache with `sdpa` and eager attention. The floor of a step is the
fastest time of each matrix product of the model with its own weights, plus reading the keys and values once from memory.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from typing import Any

import bench
import numpy as np
import torch

from etude.protocols import Sampling
from etude.rollout.generator import Generator

PROMPT, TOKENS, ROUNDS = (32, 8, 1) if bench.QUICK else (256, 48, 3)
TARGETS = {2: 2.5, 4: 5.0} if bench.QUICK else {8: 2.5, 32: 5.0}
ALONE = 8 if bench.QUICK else 64  # a batch at which etude is compared with the floor alone


def seconds_of(generator: Generator, prompts: list[np.ndarray]) -> float:
    """From the first sampled tokens to the last."""
    generator.invalidate()
    begun = generator.counters.steps

    async def first() -> float:
        while generator.counters.steps == begun:
            await asyncio.sleep(0)
        return time.perf_counter()

    async def run() -> float:
        sampling = Sampling(max_tokens=TOKENS)
        start, *_ = await asyncio.gather(first(), *(generator.submit(p, sampling, i) for i, p in enumerate(prompts)))
        return time.perf_counter() - start

    return asyncio.run(run())


@torch.inference_mode()
def floor(model: Any, batch: int, context: int) -> float:
    """Seconds that a decoding step cannot beat: its matrix products, and reading `context` keys and values per row."""
    packed_linear = torch.ops.mkldnn._linear_pointwise
    by_shape = defaultdict(list)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            by_shape[module.weight.shape].append(module.weight)
    products = 0.0
    for (_, width), weights in by_shape.items():
        x = torch.randn(batch, width, dtype=weights[0].dtype)
        packed = [torch.ops.mkldnn._reorder_linear_weight(w, batch) for w in weights]
        plain = bench.clock(lambda x=x, ws=weights: [torch.nn.functional.linear(x, w) for w in ws])
        onednn = bench.clock(lambda x=x, ws=packed: [packed_linear(x, w, None, "none", [], "") for w in ws])
        products += min(took for kind in (plain, onednn) for took in [kind() for _ in range(6)][1:])
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    itemsize = model.dtype.itemsize
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * width * context * batch * itemsize
    memory = torch.ones(2**24 if bench.QUICK else 2**27)  # 512 MiB, far more than any cache
    bandwidth = memory.nbytes / min([bench.clock(memory.sum)() for _ in range(6)][1:])
    return products + cached / bandwidth


def main() -> None:
    policy, rng, figures = bench.load_policy(), np.random.default_rng(0), []
    for batch in (*TARGETS, ALONE):
        prompts = [bench.random_ids(rng, PROMPT) for _ in range(batch)]
        generator = Generator(policy.model, frozenset(), slots=batch, active=batch, context=PROMPT + TOKENS)
        sides = {"etude": lambda g=generator, p=prompts: seconds_of(g, p)}
        for name in bench.WAYS if batch in TARGETS else ():
            sides[name] = lambda p=prompts, n=name: bench.generate(policy.model, np.stack(p), TOKENS, n)[1]
        seconds = bench.interleave(sides, ROUNDS)
        made = batch * (TOKENS - 1)  # the first token of each came before the clock
        figures += [bench.figure(f"{n}, batch {batch}", [made / s for s in seconds[n]], "tokens/s") for n in sides]
        if batch in TARGETS:
            for theirs in dict.fromkeys([bench.AS_IT_COMES, bench.fastest(seconds, *bench.WAYS)]):
                faster = bench.ratios(seconds[theirs], seconds["etude"])
                figures.append(bench.figure(f"etude against {theirs}, batch {batch}", faster, least=TARGETS[batch]))
        least = statistics.median(floor(policy.model, batch, PROMPT + TOKENS // 2) for _ in range(3)) * (TOKENS - 1)
        share = [100 * least / s for s in seconds["etude"]]
        figures.append(bench.figure(f"etude's share of the floor's speed, batch {batch}", share, "%", least=60))
    bench.report(figures)


if __name__ == "__main__":
    main()
