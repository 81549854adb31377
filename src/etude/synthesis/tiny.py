"""The `tiny` model: about two million parameters, trained here from nothing in under three minutes.

It can read a short list of tools and copy arguments, not much more: enough to be a base on which methods are told apart
in seconds. What it learns from is `synthesis.primer`; this file is its tokenizer, its shape and its training.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.cache import cache_directory
from etude.core.progress import progress
from etude.objectives.likelihood import Likelihood
from etude.policies.local import computes_bfloat16, local, save, tiny_directory
from etude.rendering import tools as plain
from etude.synthesis import primer
from etude.training.learner import Learner, Row

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
NOTATION = [
    *(plain.INSTRUCTION, '<tool_call>{"name": "', '", "arguments": {"', '"}}</tool_call>', "}}</tool_call>"),
    *("<tool_response>", "</tool_response>", '": "', '", "', '": ', ": str, ", ": str): ", ": int): "),
]
"""Frequent pieces of the tool notation, one token each."""
# A space is a token of its own, so that a word has the same tokens wherever it stands and copying it is one step;
# short words take the spaces around them with them, which keeps sentences short.
SHORT = "a|an|and|are|as|be|by|for|from|in|is|it|not|of|on|or|that|the|this|to|with"
PIECE = rf" (?:{SHORT}) |_?\p{{L}}+|\p{{N}}|\n+| +|[^\s\p{{L}}\p{{N}}]+"
VOCABULARY = 2048
LONGEST = 320  # tokens of one training row
STEPS, FIRST_STEPS, BATCH_TOKENS = 850, 50, 1024
MIX = {"text": 0.05, "chat": 0.03, "echo": 0.05, "lookup": 0.07, "errand": 0.32, "desk": 0.48}
"""Share of each kind of row, after the first steps, which are echoes and lookups alone."""

SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def train_tokenizer(texts: Sequence[str]) -> Any:
    """A transformers tokenizer: byte-level BPE of 2048 tokens with single digits, and a ChatML template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECE), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(NOTATION),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in NOTATION])
    pad, _, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=end,
        additional_special_tokens=[SPECIAL[1]],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=SHAPE["max_position_embeddings"],
    )


def start_copying(model: Any) -> None:
    """Begin with a copying circuit instead of waiting for one to form, which alone takes longer than we have.

    Two-step copying ("induction heads"), Olsson et al. 2022, arXiv:2209.11895: two heads of the first layer bring each
    token the two before it; heads of the later layers look for a place that follows the same two tokens as the one to
    be written, and raise what stands there. (One token would not do: before a word it is mostly a space.) Setting
    weights to what training would make of them is mimetic initialisation, Trockman and Kolter 2023, arXiv:2305.09828.
    Everything moves freely afterwards.
    """
    import torch

    shape = model.config
    width, channels = shape.head_dim, shape.hidden_size
    shared = shape.num_attention_heads // shape.num_key_value_heads
    spin = shape.rope_parameters["rope_theta"] ** (-torch.arange(width // 2) * 2 / width)  # radians per position

    def view() -> torch.Tensor:
        """A random look at the token, [width, channels]; channel 0 is kept for a constant."""
        rows = torch.linalg.qr(torch.randn(channels, width))[0].T
        rows[:, 0] = 0
        return rows

    this, before, earlier = view(), view(), view()
    pair = torch.arange(width) % (width // 2)  # rotary pairs; those from 6 on keep their angle over a sentence
    first, second = ((pair >= 6) & (pair < 11)).float()[:, None], (pair >= 11).float()[:, None]
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding.normal_(std=0.1)
        embedding[:, 0] = 0.3
        constant = 0.3 / embedding.square().mean().sqrt()  # channel 0 after normalisation
        for depth, layer in enumerate(model.get_decoder().layers):
            q = layer.self_attn.q_proj.weight.view(-1, width, channels)
            k = layer.self_attn.k_proj.weight.view(-1, width, channels)
            v = layer.self_attn.v_proj.weight.view(-1, width, channels)
            out = layer.self_attn.o_proj.weight.view(channels, -1, width)
            if depth == 0:
                k[0], v[0] = 0, this
                k[0, :4, 0] = 5.5 / constant
                for head, (back, place) in enumerate([(1, before), (2, earlier)]):
                    q[head] = 0  # a query `back` positions behind its own: it agrees best with the key that far back
                    q[head, :4, 0] = 5.5 / constant * (back * spin[:4]).cos()
                    q[head, width // 2 : width // 2 + 4, 0] = -5.5 / constant * (back * spin[:4]).sin()
                    out[:, head] = 0.3 * place.T
            else:
                q[:shared] = 1.4 * (this * first + before * second)
                k[0] = 1.4 * (before * first + earlier * second)
                for group, strength in enumerate([0.3, 0.1]):  # what is looked at is raised, whoever looks
                    v[group] = strength * view()
                    out[:, group * shared : (group + 1) * shared] = v[group].T[:, None]


def chatml(dialogue: primer.Dialogue) -> str:
    """What `TEMPLATE` renders."""
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in dialogue)


class Lessons:
    """Rows to train on; the same seed draws the same ones."""

    def __init__(self, seed: int, desk_episodes: int):
        self.rng = random.Random(seed)
        texts = primer.docstrings()
        self.primer = primer.Primer(primer.common_words(texts), seed)
        self.pools = {
            "text": ["\n".join(texts[i : i + 3]) for i in range(0, len(texts), 3)],
            "chat": [chatml(d) for d in primer.chat()],
            "desk": [chatml(d) for d in primer.desk_episodes(desk_episodes)],
        }
        examples = [self.primer.errand() for _ in range(1000)] + [self.primer.lookup() for _ in range(500)]
        seen = [*texts[::2], *self.pools["chat"] * 3, *self.pools["desk"][:400], *map(chatml, examples)]
        self.tokenizer = train_tokenizer(seen)
        self.header = self.tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)

    def batch(self, tokens: int, mix: dict[str, float]) -> list[Row]:
        """Rows of at least `tokens` tokens in all: text is trained whole at half weight, of dialogues the answers."""
        made: list[Row] = []
        while sum(len(row.ids_P) for row in made) < tokens:
            kind = self.rng.choices(list(mix), list(mix.values()))[0]
            text = self.rng.choice(self.pools[kind]) if kind in self.pools else chatml(getattr(self.primer, kind)())
            ids_P = np.array(self.tokenizer.encode(text, add_special_tokens=False)[:LONGEST], np.int32)
            weight_P = np.full(len(ids_P), 0.5, np.float32) if kind == "text" else self.answers(ids_P)
            weight_P[0] = 0
            mask_P = weight_P > 0
            if mask_P.any():
                n, N = len(made), int(mask_P.sum())
                unrecorded_N = np.full(N, np.nan, np.float32)
                made.append(Row(ids_P, mask_P, weight_P[mask_P], unrecorded_N, episode=n, length=N, group=n))
        return made

    def answers(self, ids_P: np.ndarray) -> np.ndarray:
        """float32 [P]; 1 on what the assistant says, its stop token included, 0 elsewhere."""
        weight_P = np.zeros(len(ids_P), np.float32)
        size, end = len(self.header), self.tokenizer.eos_token_id
        speaks = False
        for i, token in enumerate(ids_P.tolist()):
            speaks = speaks or ids_P[max(i - size, 0) : i].tolist() == self.header
            weight_P[i] = speaks
            speaks = speaks and token != end
        return weight_P


def ensure(cache: Path | None = None, *, steps: int = STEPS) -> Path:
    """The directory of the tiny model; trained first where it is not there yet, which takes two to three minutes.

    cache: where models are kept, by default `core.cache.cache_directory()`.
    steps: optimiser steps; fewer make a model without skill, for tests.
    """
    name = tiny_directory().name if steps == STEPS else f"{tiny_directory().name}-{steps}-steps"
    target = (cache or cache_directory()) / name
    if not (target / "model.safetensors").exists():
        train(target, steps)
    return target


def train(target: Path, steps: int, seed: int = 0) -> None:
    """Train from nothing and write the directory; a kill on the way leaves nothing behind."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    lessons = Lessons(seed, desk_episodes=min(3000, 10 * steps))
    tokenizer = lessons.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **SHAPE,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        start_copying(model)
    with tempfile.TemporaryDirectory() as start:
        save(model, tokenizer, Path(start) / "tiny")
        policy = local(str(Path(start) / "tiny"))
    learner = Learner(
        policy,
        Likelihood(),
        lr=1.5e-3,
        schedule="cosine",
        warmup=min(40, steps),
        steps=steps,
        weight_decay=0.05,
        micro_tokens=1024,
    )
    half = computes_bfloat16(policy.device)
    with progress(steps, "train the tiny model", "steps") as advance:
        for step in range(steps):
            mix = {"echo": 0.5, "lookup": 0.5} if step < FIRST_STEPS else MIX
            with torch.autocast(policy.device, torch.bfloat16, enabled=half):  # entered anew: it caches weights
                learner.step_rows(lessons.batch(BATCH_TOKENS, mix))
            advance()
    policy.save(target)
