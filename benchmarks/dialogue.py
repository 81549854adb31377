"""Six-turn tool dialogues, 8 at once: etude, which keeps keys and values, against `generate` anew each turn.

A prompt of 256 tokens; each turn samples 32 tokens and gets a tool result of 64. Reading the whole dialogue anew at
each turn is what TRL's trainers do with tools. transformers is taken as it comes and
with a static cache.
"""

import asyncio

import bench
import numpy as np

from etude.protocols import Sampling
from etude.rollout.generator import Generator

DIALOGUES, TURNS, PROMPT, TOKENS, RESULT, ROUNDS = (2, 3, 32, 4, 8, 1) if bench.QUICK else (8, 6, 256, 32, 64, 1)

WAYS = (bench.AS_IT_COMES, "transformers, static cache")


def ours(generator: Generator, prompts: np.ndarray, results: np.ndarray) -> None:
    async def dialogue(d: int) -> None:
        ids_P = prompts[d]
        for turn in range(TURNS):
            answer = await generator.submit(ids_P, Sampling(max_tokens=TOKENS), seed=turn)
            ids_P = np.concatenate([ids_P, answer.ids_T, results[d, turn]])

    async def run() -> None:
        await asyncio.gather(*(dialogue(d) for d in range(DIALOGUES)))

    generator.invalidate()
    asyncio.run(run())


def theirs(model, prompts: np.ndarray, results: np.ndarray, way: str) -> None:
    ids_BP = prompts
    for turn in range(TURNS):
        ids_BP, _ = bench.generate(model, ids_BP, TOKENS, way)
        ids_BP = np.concatenate([ids_BP, results[:, turn]], axis=1)


def main() -> None:
    policy, rng = bench.load_policy(), np.random.default_rng(0)
    prompts = bench.random_ids(rng, DIALOGUES * PROMPT).reshape(DIALOGUES, PROMPT)
    results = bench.random_ids(rng, DIALOGUES * TURNS * RESULT).reshape(DIALOGUES, TURNS, RESULT)
    generator = Generator(policy.model, frozenset(), slots=DIALOGUES, active=DIALOGUES)
    sides = {"etude": bench.clock(lambda: ours(generator, prompts, results))}
    for name in WAYS:
        sides[name] = bench.clock(lambda n=name: theirs(policy.model, prompts, results, n))
    seconds = bench.interleave(sides, ROUNDS)
    figures = []
    for way in dict.fromkeys([bench.AS_IT_COMES, bench.fastest(seconds, *WAYS)]):
        figures.append(bench.figure(f"etude against {way}", bench.ratios(seconds[way], seconds["etude"]), least=4))
    figures += [bench.figure(name, seconds[name], "s") for name in sides]
    bench.report(figures)


if __name__ == "__main__":
    main()
