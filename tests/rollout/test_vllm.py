"""vLLM itself, where it is installed, against the policy's own numbers."""

import asyncio

import numpy as np
import pytest
import torch

from etude.agents.loops import native
from etude.core.errors import PolicyError
from etude.core.parts import build
from etude.objectives import clipped
from etude.protocols import Sampling
from etude.rollout.collect import attach, collect
from etude.rollout.generator import logprob
from etude.training.learner import Learner

from ..engine_fixtures import Talk, make_tokenizer


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A tiny untrained Llama with heads as wide as vLLM wants them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    directory, tokenizer = tmp_path_factory.mktemp("wide"), make_tokenizer()
    shape = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), **shape, max_position_embeddings=512, initializer_range=0.3, bos_token_id=None
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return build("policies/local", model=str(directory), dtype="float32", engine="vllm")


@pytest.mark.slow
def test_it_does_what_the_own_decoder_does(policy, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # on a CPU, compiling takes minutes
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    attach(policy)
    prompts = [policy.renderer.encode(text) for text in ("the cat", "the cat sat on the mat", "dog")]

    def run(sampling):
        async def all_of_them():
            return await asyncio.gather(*(policy.generator.submit(p, sampling, i) for i, p in enumerate(prompts)))

        return asyncio.run(all_of_them())  # an event loop of its own each time, as stages have

    def check(got, temperature):
        for prompt, answer in zip(prompts, got, strict=True):
            ids = torch.from_numpy(np.concatenate([prompt, answer.ids_T])).long()
            with torch.no_grad():
                logits = policy.model(ids[None]).logits[0, len(prompt) - 1 : -1]
            own = logprob(logits, ids[len(prompt) :], temperature)
            np.testing.assert_allclose(answer.logprob_T, own, atol=1e-3)

    for temperature in (1.0, 0.5, 0.0):
        check(run(Sampling(12, temperature)), temperature)
    for one, again in zip(run(Sampling(12)), run(Sampling(12)), strict=True):
        np.testing.assert_array_equal(one.ids_T, again.ids_T)
    assert all(a.logprob_T is None for a in [*run(Sampling(3, top_p=0.9)), *run(Sampling(3, min_p=0.1))])

    ended = [a for a in run(Sampling(500, 2.0)) if not a.truncated]
    assert ended
    assert all(int(a.ids_T[-1]) in policy.renderer.stop_ids for a in ended), "the stop token is part of what is sampled"

    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    policy.changed()
    check(run(Sampling(12)), 1.0)

    made = asyncio.run(collect(policy, Talk(turns=2).tasks("train", 3), agent=native(), group=2, sampling=Sampling(30)))
    assert not [e.failure for t in made for e in t.episodes if e.failure]
    for trajectory in made:
        trajectory.weigh([1.0, -1.0])
    figures = Learner(policy, clipped(), lr=1e-3).step(made)
    assert figures["ratio"] == pytest.approx(1.0, abs=1e-3)
    check(run(Sampling(12)), 1.0)

    with pytest.raises(PolicyError, match="no logit_bias"):
        run(Sampling(logit_bias={1: 2.0}))
    policy.generator.close()
    policy.generator = None


def test_without_the_package_it_says_what_to_install(policy, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(policy, "generator", None)
    with pytest.raises(PolicyError, match=r"pip install vllm .* && pip install --no-deps etude"):
        attach(policy)
    with pytest.raises(PolicyError, match="engine 'vlm' is not one of etude, vllm"):
        build("policies/local", model=policy.name, engine="vlm")
