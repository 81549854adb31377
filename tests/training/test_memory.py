"""What a step is foretold to need is what it allocates, and a step that does not fit is made to."""

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from etude.core.errors import PartError
from etude.objectives import likelihood
from etude.policies.attention import ATTENTION
from etude.training.learner import Learner, rows
from etude.training.memory import GIB, fit, peak
from etude.trajectory.forest import forest

from .conftest import Gradients, tree


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are alive, their peak, and the largest tensor."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = self.largest = 0
        self.seen = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen[storage] = size = storage.nbytes()
                self.now, self.largest = self.now + size, max(self.largest, size)
                weakref.finalize(storage, self._freed, size)
        self.peak = max(self.peak, self.now)
        return made

    def _freed(self, size: int) -> None:
        self.now -= size


@pytest.fixture
def policy_of(load_policy):
    """Called with sizes: a policy whose model has them."""

    def make(dtype: str = "float32", **sizes: int):
        from transformers import LlamaConfig, LlamaForCausalLM

        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
        policy = load_policy(dtype=dtype)
        config = LlamaConfig(vocab_size=320, attn_implementation=ATTENTION, **heads, **sizes)
        policy.model = LlamaForCausalLM(config).to(policy.dtype).eval()
        return policy

    return make


WIDE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3}  # weights are most of it
DEEP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8}  # what layers keep is


def batch(sequences: int) -> list:
    """Sequences of 64 tokens, all but the first trained."""
    made = [tree({0: (None, 64, True)}, [0], seed=i, logprob=-4.0) for i in range(sequences)]
    for trajectory in made:
        trajectory.weigh([1.0])
    return rows(made)


@pytest.mark.parametrize("sizes", [WIDE, DEEP], ids=["wide", "deep"])
@pytest.mark.parametrize(
    ("dtype", "weights", "checkpointing", "within"),
    [
        ("float32", "full", False, (0.9, 1.15)),
        ("float32", "full", True, (0.9, 1.15)),
        ("bfloat16", "full", False, (0.9, 1.15)),
        ("float32", "lora", False, (0.9, 1.3)),  # what a frozen layer need not keep is counted all the same
    ],
)
def test_the_foretold_peak_is_what_a_step_allocates(policy_of, sizes, dtype, weights, checkpointing, within):
    policy, micro_tokens = policy_of(dtype, **sizes), 512
    held = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    with Allocated() as allocated:
        learner = Learner(policy, likelihood(), weights=weights, micro_tokens=micro_tokens, memory=1.0)
        learner.checkpointing = checkpointing
        for _ in range(2):  # the first makes the optimiser's moments
            learner.step_rows(batch(24))
    foretold = peak(policy.model, micro_tokens, checkpointing=checkpointing)
    assert within[0] < foretold.total / (held + allocated.peak) < within[1], foretold


def test_micro_batches_shrink_and_then_layers_keep_less(policy_of):
    policy = policy_of(**DEEP)
    need = {
        (size, less): peak(policy.model, size, checkpointing=less).total
        for size in (256, 512, 1024, 2048)
        for less in (False, True)
    }
    assert fit(policy.model, 2048, need[2048, False]) == (2048, False)
    assert fit(policy.model, 2048, need[2048, False] - 1) == (1024, False)
    assert fit(policy.model, 2048, need[256, False]) == (256, False)
    assert need[512, True] < need[256, False] - 1
    size, less = fit(policy.model, 2048, need[256, False] - 1)
    assert less
    assert size >= 512
    learner = Learner(policy, likelihood(), micro_tokens=2048, memory=(need[256, False] - 1) / GIB)
    assert (learner.micro_tokens, learner.checkpointing) == (size, True)


def test_what_cannot_fit_says_what_would(policy_of):
    policy = policy_of(**WIDE)
    least = peak(policy.model, 256, checkpointing=True).total
    told = r"needs 0\.01\d+ GiB, and memory is 0\.0\d+ GiB; what would fit: 0\.01\d+ GiB, or weights: lora, or \d+ proc"
    with pytest.raises(PartError, match=told):
        Learner(policy, likelihood(), memory=0.75 * least / GIB)


class Sharp:
    """Likelihood and less entropy."""

    needs = frozenset({"entropy"})

    def __call__(self, batch):
        return (0.1 * batch.entropy_N - batch.logprob_N * batch.weight_N).sum() / batch.tokens, {}


@pytest.mark.parametrize("objective", [likelihood(), Sharp()], ids=["plain", "entropy"])
def test_keeping_less_and_logits_in_chunks_change_no_number(policy, dialogues, objective):
    learner = Learner(policy, objective)
    whole, figures = Gradients(learner).of(dialogues)
    learner.checkpointing = True
    again, others = Gradients(learner).of(dialogues)
    assert torch.equal(again, whole)
    assert others == figures
    policy.logits_at_once = 5 * 320
    chunked, others = Gradients(learner).of(dialogues)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)
    assert others == pytest.approx(figures, rel=1e-5)
    assert whole.abs().max() > 1e-3


def test_all_logits_never_exist_at_once(policy):
    vocabulary, made = policy.model.config.vocab_size, batch(8)
    trees, masks = forest([r.ids_P for r in made], 1), [r.mask_P for r in made]

    def largest(at_once: int) -> int:
        policy.logits_at_once = at_once
        with Allocated() as allocated:
            logprob_N, entropy_N, _ = policy.logprob(trees, masks, entropy=True)
            (logprob_N.sum() + entropy_N.sum()).backward()
        return allocated.largest

    assert largest(2**26) == 4 * 8 * 63 * vocabulary
    assert largest(8 * vocabulary) < 4 * 8 * 63 * vocabulary / 2


def test_layers_are_as_they_were_after_a_step(policy, dialogues):
    learner = Learner(policy, likelihood())
    learner.checkpointing = True
    learner.step(dialogues)
    assert not any("forward" in vars(layer) for layer in policy.model.get_decoder().layers)
    assert np.isfinite(learner.step(dialogues)["loss"])
