"""What the benchmarks share: taking turns, the figures that are printed, what is played, transformers' decoding."""

import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from etude.core import parts
from etude.protocols import Observation, Run, Step, Task
from etude.synthesis import tiny
from etude.trajectory import Message

QUICK = "--quick" in sys.argv  # the tiny model and little work: shows that it runs, and measures nothing
WORDS = "time day man world life hand part child eye woman place work week case point company number group problem fact"


# -- measuring -----------------------------------------------------------------------------------------------------


def clock(work: Callable[[], Any]) -> Callable[[], float]:
    """The same work, giving the seconds that it took."""

    def timed() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return timed


def interleave(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each side gives in each round, after a round to warm up; every other round in the reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(rounds + 1):
        for name in list(sides)[:: 1 if n % 2 else -1]:
            took = sides[name]()
            if n:
                seconds[name].append(took)
    return seconds


def alternate(script: str, sides: Sequence[str], rounds: int, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """What `script --side SIDE` prints as its last line, of processes that take turns: A, B, A, B."""
    printed: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            command = [sys.executable, script, "--side", side, *arguments, *(["--quick"] if QUICK else [])]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            printed[side].append(json.loads(output.splitlines()[-1]))
    return printed


def fastest(seconds: Mapping[str, Sequence[float]], *names: str) -> str:
    """The side with the least median."""
    return min(names, key=lambda name: statistics.median(seconds[name]))


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Of pairs from the same round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def figure(
    what: str, values: Sequence[float], unit: str = "×", *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """Median and range of the measured values; least, most: what is aimed at."""
    middle, count = statistics.median(values), len(values)
    spread = {"median": middle, "low": min(values), "high": max(values), "count": count}
    return {"what": what, "unit": unit, **spread, "least": least, "most": most}


def report(figures: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Print what `run.py` reads."""
    print(json.dumps({"figures": figures, **more}), flush=True)


# -- what is decoded, played and trained ---------------------------------------------------------------------------


def load_policy(**settings: Any) -> Any:
    """SmolLM2-135M in the best type for this processor."""
    return load_tiny(**settings) if QUICK else parts.build("policies/local", model="smollm2", **settings)


def load_tiny(**settings: Any) -> Any:
    """The tiny model, trained first where it is not in the cache."""
    return parts.build("policies/local", model=str(tiny.ensure()), **settings)


def load_for_trl() -> tuple[Any, Any]:
    """The same model, in float32 as TRL loads it, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from etude.policies.local import resolve

    directory = tiny.ensure() if QUICK else resolve("smollm2")
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(directory)


def random_ids(rng: np.random.Generator, tokens: int) -> np.ndarray:
    """int32 [tokens]; ordinary tokens."""
    return rng.integers(100, 2000, tokens).astype(np.int32)


def peak() -> float:
    """Most memory, in MiB, that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sentence(words: int, seed: int) -> str:
    """Words that are one token each to SmolLM2."""
    return " ".join(random.Random(seed).choices(WORDS.split(), k=words))


class Chat:
    """A world that answers `turns` times, each after `latency` seconds, and rewards the last answer by its length."""

    name, reward_range = "chat", (0.0, 1.0)

    def __init__(self, words: int, turns: int = 1, latency: float = 0.0):
        self.words, self.turns, self.latency = words, turns, latency

    def tasks(self, split: str, count: int = 8, first: int = 0) -> list[Task]:
        return [
            Task(f"chat/{n}", self, split, {"prompt": sentence(self.words, n)}) for n in range(first, first + count)
        ]

    def open(self) -> "_ChatSession":
        return _ChatSession(self)


class _ChatSession:
    def __init__(self, world: Chat):
        self.world, self.tools, self.answers = world, [], 0

    async def reset(self, task: Task, seed: int) -> Observation:
        return Observation((Message("user", task.data["prompt"]),))

    async def step(self, action: Message) -> Step:
        if self.world.latency:
            await asyncio.sleep(self.world.latency)
        self.answers += 1
        if self.answers < self.world.turns:
            return Step(Observation((Message("user", sentence(4, self.answers)),)))
        return Step(Observation(), done=True, reward=reward(action.content))

    async def close(self) -> None: ...


def reward(answer: str) -> float:
    """Fixed, and different within nearly every group."""
    return len(answer) % 7 / 6


class talk:
    """An agent that says something `turns` times, of as many tokens as `lengths` says: prompt -> one number a turn."""

    def __init__(self, lengths: Callable[[str], Sequence[int]]):
        self.lengths = lengths

    async def __call__(self, run: Run, first: Observation) -> None:
        run.observe(*first.messages)
        for tokens in self.lengths(first.messages[-1].content):
            action = await run.act(max_tokens=int(tokens))
            step = await run.step(action.message)
            run.observe(*step.observation.messages)


def never_stops(policy: Any, **settings: int) -> Any:
    """Give the policy a decoder that no token ends, so that answers are as long as they may be."""
    from etude.rollout.generator import Generator

    policy.generator = Generator(policy.model, frozenset(), **{"context": policy.context, **settings})
    return policy


# -- the other side ------------------------------------------------------------------------------------------------

AS_IT_COMES = "transformers as it comes"
WAYS = {  # cache and attention of `generate`; compiling takes minutes and is left out
    AS_IT_COMES: (None, "sdpa"),
    "transformers, eager": (None, "eager"),
    "transformers, static cache": ("static", "sdpa"),
    "transformers, static cache, eager": ("static", "eager"),
}


def generate(model: Any, ids_BP: np.ndarray, tokens: int, way: str) -> tuple[np.ndarray, float]:
    """transformers' own sampling: int [B, P + tokens], and the seconds from the first sampled tokens to the last."""
    import torch
    from transformers import StoppingCriteria

    times = []

    class Watch(StoppingCriteria):
        def __call__(self, input_ids, scores, **_):
            times.append(time.perf_counter())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    cache, attention = WAYS[way]
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    ids = torch.from_numpy(ids_BP).long()
    lengths = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            cache_implementation=cache,
            disable_compile=True,
            stopping_criteria=[Watch()],
            **lengths,
        )
    model.set_attn_implementation(before)
    assert made.shape == (len(ids_BP), ids_BP.shape[1] + tokens), f"{tuple(made.shape)} is not what was asked for"
    return made.numpy(), times[-1] - times[0]
