"""How fast this machine could go, and how fast etude goes on it.

A floor is time that no implementation of a step can save on this machine: the matrix products of the model's own
weights, one after the other as a step uses them, each in the quickest form that torch has, and the keys and values read
once from memory. Norms, rotations, softmax, sampling, the optimiser's bookkeeping and Python are not in it.

    decode     products of B rows with every nn.Linear and the head, plus B conversations' keys and values / read rate
    prefill    products of ROWS rows with every nn.Linear, plus attention at the same FLOP rate; per token
    train      the same times 3 for a weight that moves (forward, gradient of inputs, gradient of weights) and times 2
               for one that does not, as under LoRA; per token computed; the head likewise, per token trained
    optimiser  AdamW reads and writes master and both moments and reads the gradient, 28 bytes for each number that
               moves, at the triad rate; per step

On a processor, oneDNN is quicker where weights are packed once; the floor is the quicker of both forms.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from etude.core import parts
from etude.core.errors import EtudeError
from etude.policies.local import computes_bfloat16
from etude.protocols import Sampling
from etude.rollout.generator import Generator
from etude.training.learner import Learner, Row, prepare

SIDE = 2048  # of the square matrix by which a machine's GEMM rate is told
GEMM_ROWS = (1, 8, 32, 64, 256, 1024)
SLOTS = (1, 8, 32, 64)
PROMPT, ANSWER = 256, 32  # tokens of the conversations that are timed
CONTEXT = PROMPT + ANSWER // 2  # mean tokens that a decoding step looks back on
ROWS = 512  # tokens computed at once in prefill and training
BYTES = 1 << 28  # read to tell a memory's rate; more than caches hold


@dataclass(frozen=True)
class Machine:
    """What the hardware does, in units per second."""

    gflops: dict[str, dict[int, float]]
    """Type -> rows M -> GFLOP/s of [M, SIDE] x [SIDE, SIDE]."""
    read: float
    """Bytes per second of a sum."""
    triad: float
    """Bytes per second of a = b + s c, which reads two arrays and writes one (McCalpin's STREAM)."""


@dataclass(frozen=True)
class Speed:
    """Seconds that a model takes, at the floor or as measured."""

    decode: dict[int, float]
    """Conversations at once -> seconds of a step, which gives each its next token."""
    prefill: float
    """Of a token read."""
    train: float
    """Of a token computed in training, by forward and backward pass."""
    step: float
    """Of an optimiser step, its batch apart."""
    head: float = 0.0
    """Of a token trained, beyond what `train` holds of it; 0 where `train` includes it."""

    def decode_step(self, slots: float) -> float:
        """Seconds of a step of this many conversations, between the counts that were measured."""
        return float(np.interp(slots, list(self.decode), list(self.decode.values())))


# -- counting ------------------------------------------------------------------------------------------------------


def linears(model: Any) -> list[torch.nn.Linear]:
    """The matrices that every token goes through, in the model's order, without the head.

    Raises EtudeError where most weights are elsewhere, such as in experts of which a token sees few.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    found = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    rest = sum(p.numel() for p in decoder.parameters()) - model.get_input_embeddings().weight.numel()
    inside = sum(module.weight.numel() for module in found)
    if inside < rest / 2:
        name = type(decoder).__name__
        raise EtudeError(f"{name}: no floor is known, for {inside} of its {rest} weights are in nn.Linear modules")
    return found


def attention_flops(model: Any, keys: float) -> float:
    """FLOPs of one token's attention to this many keys, over all layers: two products, 4 per channel and key."""
    layers, heads, _, width = _shape(model)
    return 4 * layers * heads * width * keys


def cache_bytes(model: Any) -> int:
    """Bytes of one token's keys and values."""
    layers, _, kv_heads, width = _shape(model)
    return 2 * layers * kv_heads * width * model.get_output_embeddings().weight.element_size()


def _shape(model: Any) -> tuple[int, int, int, int]:
    """Layers, query heads, key-value heads, width of a head."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, heads, getattr(config, "num_key_value_heads", None) or heads, width


def passes(modules: Sequence[torch.nn.Module]) -> float:
    """Products that training takes for one of the forward pass, in the mean over their weights: 3 or 2, see above."""
    sizes = [module.weight.numel() for module in modules]  # type: ignore[union-attr,operator]
    times = [3 if module.weight.requires_grad else 2 for module in modules]  # type: ignore[union-attr]
    return float(np.average(times, weights=sizes))


def optimiser_bytes(model: Any) -> int:
    """Bytes that an AdamW step must move: see the top; where the model is not in float32, it is written as well."""
    moving = [p for p in model.parameters() if p.requires_grad]
    return sum(p.numel() * (28 + (0 if p.dtype == torch.float32 else p.element_size())) for p in moving)


# -- measuring the machine -----------------------------------------------------------------------------------------


def timed(run: Callable[[], Any], device: str, least: float = 0.003, repeats: int = 5) -> float:
    """Median seconds of a call, after a warm one; each repeat calls it for at least `least` seconds."""

    def seconds(calls: int) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        _wait(device)
        return (time.perf_counter() - start) / calls

    run()
    once = seconds(1)
    if once > 0.2:
        return statistics.median([once, seconds(1), seconds(1)])
    calls = math.ceil(least / once)
    return statistics.median(seconds(calls) for _ in range(repeats))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@torch.inference_mode()
def products(weights: Sequence[torch.Tensor], rows: int) -> float:
    """Seconds of [rows, inner] x weight [outer, inner] for each weight in turn; the quicker of plain and packed."""
    device = weights[0].device.type
    inputs = {(w.shape[1], w.dtype): torch.randn(rows, w.shape[1], device=device).to(w.dtype) for w in weights}
    pairs = [(inputs[w.shape[1], w.dtype], w) for w in weights]

    def plain() -> None:
        for x, w in pairs:
            torch.nn.functional.linear(x, w)

    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return timed(plain, device)
    packed = [(x, torch.ops.mkldnn._reorder_linear_weight(w, rows)) for x, w in pairs]

    def ready() -> None:
        for x, w in packed:
            torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")

    return min(timed(plain, device), timed(ready, device))


def machine(device: str) -> Machine:
    """Measure the hardware, in about ten seconds."""
    types = [torch.float32] + ([torch.bfloat16] if computes_bfloat16(device) else [])
    gflops = {}
    for dtype in types:
        weight = torch.randn(SIDE, SIDE, device=device).to(dtype)
        rate = {M: 2e-9 * M * SIDE**2 / products([weight], M) for M in GEMM_ROWS}
        gflops[str(dtype).removeprefix("torch.")] = rate
    return Machine(gflops, *bandwidth(device))


def bandwidth(device: str) -> tuple[float, float]:
    """Bytes per second of reading and of a triad."""
    a, b, c = (torch.ones(BYTES // 4, device=device) for _ in range(3))
    read = BYTES / timed(a.sum, device)
    return read, 3 * BYTES / timed(lambda: torch.add(b, c, alpha=0.5, out=a), device)


# -- a model's floor -----------------------------------------------------------------------------------------------


def floor(model: Any, read: float, triad: float, slots: Sequence[int] = SLOTS) -> Speed:
    """The least time of a model on this machine, by the module's formulas.

    model: a transformers causal LM, as its weights part left it: what moves counts three times in training.
    read, triad: bytes per second, of `bandwidth`.
    """
    inner, head = linears(model), model.get_output_embeddings()
    weights = [module.weight for module in inner]
    decode = {}
    for B in slots:
        decode[B] = products(weights, B) + products([head.weight], B) + B * CONTEXT * cache_bytes(model) / read
    seconds = products(weights, ROWS)
    flops = 2 * ROWS * sum(w.numel() for w in weights)
    attention = attention_flops(model, PROMPT / 2) * seconds / flops
    return Speed(
        decode,
        prefill=seconds / ROWS + attention,
        train=passes(inner) * seconds / ROWS + 3 * attention,
        step=optimiser_bytes(model) / triad,
        head=passes([head]) * products([head.weight], ROWS // 4) / (ROWS // 4),
    )


# -- what etude reaches --------------------------------------------------------------------------------------------


async def measure(policy: Any, weights: Any = "full", slots: Sequence[int] = SLOTS) -> Speed:
    """Time etude's own decoder and learner on made-up tokens, a few steps each.

    policy: a `policies/local`; its weights stay as they are, though its version grows.
    weights: a weights part or its name, see `etude.training.Learner`.
    """
    part = parts.build(f"weights/{weights}") if isinstance(weights, str) else weights
    prepare(policy, part)  # adapters take their time in decoding too
    decode = {B: await _decode(policy, B) for B in slots}
    prefill = await _prefill(policy)
    train, step = _train(policy, part)
    policy.model.zero_grad(set_to_none=True)
    return Speed(decode, prefill, train, step)


def _ids(policy: Any, random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(0, policy.model.get_output_embeddings().weight.shape[0], shape, dtype=np.int32)


async def _answers(generator: Generator, prompts: Sequence[np.ndarray], tokens: int) -> tuple[float, list[np.ndarray]]:
    """Seconds, and the ids that were sampled for each prompt."""
    start = time.perf_counter()
    got = await asyncio.gather(*(generator.submit(p, Sampling(tokens), i) for i, p in enumerate(prompts)))
    return time.perf_counter() - start, [one.ids_T for one in got]


async def _decode(policy: Any, slots: int) -> float:
    """Seconds of one step of `slots` conversations, which share most of their prompt so that filling them is quick."""
    generator = Generator(policy.model, frozenset(), slots=slots, active=slots, context=PROMPT + ANSWER + 2)
    random = np.random.default_rng(0)
    shared = _ids(policy, random, PROMPT - 8)
    prompts = [np.concatenate([shared, _ids(policy, random, 8)]) for _ in range(slots)]
    _, first = await _answers(generator, prompts, 1)
    prompts = [np.concatenate(pair) for pair in zip(prompts, first, strict=True)]  # each goes on in its slot
    seconds, _ = await _answers(generator, prompts, ANSWER)
    return seconds / ANSWER


async def _prefill(policy: Any) -> float:
    count = ROWS // PROMPT
    generator = Generator(policy.model, frozenset(), slots=count, active=count, context=PROMPT + 2)
    random, seconds = np.random.default_rng(0), 0.0
    for _ in range(2):  # the first is a warm-up
        prompts = list(_ids(policy, random, count, PROMPT))
        seconds, _ = await _answers(generator, prompts, 1)
    return seconds / ROWS


def _train(policy: Any, weights: Any) -> tuple[float, float]:
    """Seconds of a token and of a step: from two sizes of a batch. The rate is 0, so nothing moves."""
    learner = Learner(policy, parts.build("objectives/likelihood"), weights=weights, lr=0.0)
    random = np.random.default_rng(0)

    def seconds(count: int, length: int) -> float:
        mask_P, taken = np.arange(length) >= length * 3 // 4, []
        for _ in range(2):  # the first is a warm-up
            ids = _ids(policy, random, count, length)
            ones = np.ones(int(mask_P.sum()), np.float32)
            batch = [Row(ids[i], mask_P, ones, ones * np.nan, i, len(ones), i) for i in range(count)]
            start = time.perf_counter()
            learner.step_rows(batch)
            _wait(policy.device)
            taken.append(time.perf_counter() - start)
        return taken[-1]

    small, large = seconds(1, 64), seconds(ROWS // PROMPT, PROMPT)
    token = max(0.0, large - small) / (ROWS - 64) or large / ROWS
    return token, max(0.0, small - 64 * token)
