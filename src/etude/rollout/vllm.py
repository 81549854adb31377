"""vLLM in the place of etude's own decoder: the same interface, for large models on a GPU.

vLLM holds a copy of the weights in a process of its own. After each change they are written to a directory in memory,
and the next request first loads them in place. Its numbers depend on what else is in the batch, so runs with it are not
repeated to the last bit.

Departures from `rollout.generator`: no bias and no grammar, because vLLM does not say what these chose; and no
log-probabilities under `top_p` or `min_p`, because its own are those of what is left.
"""

import asyncio
import atexit
import itertools
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.errors import PolicyError
from etude.protocols import Sampling
from etude.rollout.generator import Engine, Sampled

# vLLM 0.33 wants an older transformers than etude does; etude ran with 0.32 and transformers 5.19
INSTALL = "  pip install vllm peft gguf psutil pyarrow fsspec jsonschema rich && pip install --no-deps etude"
MEMORY = 0.4  # share of the GPU's; the learner is on the same one


class VLLM(Engine):
    """See `rollout.generator.Generator`; all of its methods here mean the same."""

    def __init__(self, policy: Any):
        """policy: such as `policies/local`; its weights, context and stop tokens. Raises PolicyError without vLLM."""
        try:
            import vllm  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise PolicyError(
                f"engine 'vllm' needs vLLM ({error}); in an environment of its own:\n{INSTALL}"
            ) from error
        super().__init__()
        self.policy = policy
        self._running, self._stale, self._number = 0, False, itertools.count()
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._directory = tempfile.TemporaryDirectory(prefix="etude-vllm-", dir=memory)
        # an engine belongs to one event loop, and episodes are played in many
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        atexit.register(self.close)

    def invalidate(self) -> None:
        if self._running:
            raise PolicyError(f"{self._running} requests were being decoded; await them before the weights change")
        self._stale = True

    async def submit(self, prompt: np.ndarray, sampling: Sampling, seed: int) -> Sampled:
        room = self.policy.context - len(prompt)
        if not len(prompt) or room <= 0:
            raise PolicyError(
                f"a prompt of {len(prompt)} tokens; 1 to {self.policy.context - 1} leave room for an answer"
            )
        if sampling.grammar or sampling.logit_bias:
            raise PolicyError("engine 'vllm' takes no grammar and no logit_bias; take engine 'etude'")
        self._running += 1
        try:
            answer = self._submit(prompt, sampling, seed, min(sampling.max_tokens, room))
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer, self._loop))
        finally:
            self._running -= 1

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._directory.cleanup()

    # -- in the engine's thread ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore[reportMissingImports]
        from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

        self._lock = asyncio.Lock()
        self.policy.save(self._model)
        settings = AsyncEngineArgs(
            model=self._model,
            dtype=str(self.policy.dtype).removeprefix("torch."),
            max_model_len=self.policy.context,
            gpu_memory_utilization=MEMORY,
            enforce_eager=self.policy.device == "cpu",
            distributed_executor_backend="uni",
            logprobs_mode="processed_logprobs",  # after the temperature
            disable_log_stats=True,
        )
        self._engine = AsyncLLM.from_engine_args(settings)

    async def _stop(self) -> None:
        self._engine.shutdown()

    @property
    def _model(self) -> str:
        return f"{self._directory.name}/model"

    async def _submit(self, prompt: np.ndarray, sampling: Sampling, seed: int, most: int) -> Sampled:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        async with self._lock:
            if self._stale:
                self.policy.save(self._model)
                await self._engine.collective_rpc("reload_weights", kwargs={"weights_path": self._model})
                await self._engine.reset_prefix_cache()
                self._stale = False
        given, last = {"prompt_token_ids": prompt.tolist()}, None
        try:
            settings = SamplingParams(
                max_tokens=most,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                stop=list(sampling.stop),
                stop_token_ids=sorted(self.policy.renderer.stop_ids),
                skip_special_tokens=False,
                seed=seed % 2**63,
                logprobs=0,  # of the sampled token alone
            )
            async for output in self._engine.generate(given, settings, f"etude-{next(self._number)}"):
                last = output
        except Exception as error:
            raise PolicyError(f"decoding failed: {error!r}") from error
        if last is None:
            raise PolicyError("decoding failed: vLLM gave no answer")
        answer, cached = last.outputs[0], last.num_cached_tokens or 0
        ids = list(answer.token_ids)
        self.counters.prefilled += len(prompt) - cached
        self.counters.reused += cached
        self.counters.sampled += len(ids)
        uncut = sampling.top_p == 1 and not sampling.min_p
        logprob_T = np.array([step[id].logprob for step, id in zip(answer.logprobs, ids, strict=True)], np.float32)
        return Sampled(np.array(ids, np.int32), logprob_T if uncut else None, answer.finish_reason == "length")
