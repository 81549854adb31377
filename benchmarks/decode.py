"""Decoding: etude's generator against transformers' `generate`, both sampling, the prompts' own time left out.

Prompts of 256 tokens, 48 sampled tokens that nothing stops, one model object for both sides. transformers is taken as
it comes, and at the fastest of growing and static cache with `sdpa` and eager attention. The floor of a step is the
fastest time of each matrix product of the model with its own weights, plus reading keys and values once from memory, as
`etude doctor --speed` measures it.
"""

import asyncio
import time

import bench
import numpy as np

from etude.apps import floors
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
        least = floors.floor(policy.model, *floors.bandwidth(policy.device), slots=(batch,)).decode[batch]
        share = [100 * least * (TOKENS - 1) / s for s in seconds["etude"]]
        figures.append(bench.figure(f"etude's share of the floor's speed, batch {batch}", share, "%", least=60))
    bench.report(figures)


if __name__ == "__main__":
    main()
