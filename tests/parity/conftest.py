"""A tiny random Llama, a tiny tokenizer, and batches in both TRL's padded layout and etude's flat one."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from etude.protocols import Batch

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT, COMPLETION = 4, 6
LENGTHS = (6, 2, 4, 3)  # tokens of each completion; the rest is padding


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(["the cat sat on the mat"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<pad>", chat_template=CHATML
    )


@pytest.fixture
def model(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=2, initializer_range=0.5, **shape)
    return LlamaForCausalLM(config)


@dataclass
class Padded:
    """The same samples as TRL holds them: prompt and completion side by side, completions padded on the right."""

    prompt_BP: torch.Tensor
    completion_BT: torch.Tensor
    mask_BT: torch.Tensor

    def logprob_BT(self, model) -> torch.Tensor:
        """Of the completion tokens, by the model's plain logits."""
        ids = torch.cat([self.prompt_BP, self.completion_BT], dim=1)
        attention = torch.cat([torch.ones_like(self.prompt_BP), self.mask_BT], dim=1)
        logits = model(input_ids=ids, attention_mask=attention).logits[:, PROMPT - 1 : -1]
        return logits.log_softmax(-1).gather(-1, self.completion_BT[..., None])[..., 0]

    def flat(
        self,
        model,
        weight_B: np.ndarray,
        old_BT: torch.Tensor,
        reference_BT: torch.Tensor | None = None,
        group_B: torch.Tensor | None = None,
    ) -> Batch:
        """The masked tokens as etude's batch, log-probabilities with gradient; one group, if not said otherwise."""
        keep_BT = self.mask_BT.bool()
        group_S = torch.zeros(len(weight_B), dtype=torch.long) if group_B is None else group_B
        length_S = self.mask_BT.sum(1)
        sequence_N = torch.repeat_interleave(torch.arange(len(length_S)), length_S)
        return Batch(
            logprob_N=self.logprob_BT(model)[keep_BT],
            weight_N=torch.tensor(weight_B, dtype=torch.float32)[sequence_N],
            old_logprob_N=old_BT[keep_BT],
            sequence_N=sequence_N,
            length_S=length_S,
            tokens=int(length_S.sum()),
            sequences=len(length_S),
            max_length=COMPLETION,
            episode_S=torch.arange(len(length_S)),
            group_S=group_S,
            groups=len(group_S.unique()),
            reference_logprob_N=None if reference_BT is None else reference_BT[keep_BT],
        )


@pytest.fixture
def padded(tokenizer) -> Padded:
    generator = torch.Generator().manual_seed(3)
    mask_BT = (torch.arange(COMPLETION)[None] < torch.tensor(LENGTHS)[:, None]).long()
    completion_BT = torch.randint(3, len(tokenizer), (len(LENGTHS), COMPLETION), generator=generator) * mask_BT
    return Padded(torch.randint(3, len(tokenizer), (len(LENGTHS), PROMPT), generator=generator), completion_BT, mask_BT)


def gradients(loss: torch.Tensor, model) -> dict[str, torch.Tensor]:
    """Of every parameter, by name."""
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.fixture
def same(model):
    """Asserts that two losses and all their parameter gradients agree to 1e-5."""

    def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
        # Positive and negative weights cancel: a loss near zero keeps the rounding of its terms, which are of order 1.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)
        mine, other = gradients(ours, model), gradients(theirs, model)
        assert sum(g.abs().sum() for g in other.values()) > 0
        for name, gradient in other.items():
            error = (mine[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
            assert error < 1e-5, f"gradient of {name} differs by {error:.1e}"

    return check
