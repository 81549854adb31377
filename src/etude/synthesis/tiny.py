"""The `tiny` model: about two million parameters, trained here from nothing in two minutes.

It can read a short list of tools and copy arguments, not much more: enough to be a base on which methods are told apart
in seconds. What it learns from is `synthesis.primer`; this file is its tokenizer, its shape and its training.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.progress import progress
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
STEPS, BATCH_TOKENS = 600, 1536
MIX = {"text": 0.05, "chat": 0.03, "echo": 0.07, "lookup": 0.1, "errand": 0.4, "desk": 0.35}
"""Share of each kind of row."""

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


def start_copying(model: Any, spread: float = 0.1) -> None:
    """Begin with a copying circuit instead of waiting for one to form, which alone takes longer than we have.

    Two-step copying ("induction heads"), Olsson et al. 2022, arXiv:2209.11895: a head of the first layer brings each
    token the one before it; heads of the later layers look for places whose *previous* token is the current one, and
    raise what stands there. Setting weights to what training would make of them is mimetic initialisation, Trockman and
    Kolter 2023, arXiv:2305.09828. Everything moves freely afterwards.
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
        embedding.normal_(std=spread)
        embedding[:, 0] = 3 * spread
        constant = 3 * spread / embedding.square().mean().sqrt()  # channel 0 after normalisation
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
                v[0] = 0.3 * view()
                out[:, :shared] = v[0].T[:, None]


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
        examples = [chatml(self.primer.errand()) for _ in range(1000)] + [
            chatml(self.primer.lookup()) for _ in range(500)
        ]
        self.tokenizer = train_tokenizer(texts[::2] + self.pools["chat"] * 3 + self.pools["desk"][:400] + examples)
        self.header = self.tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)

    def batch(self, tokens: int) -> list[Row]:
        """Rows of at least `tokens` tokens in all: text is trained whole at half weight, of dialogues the answers."""
        made: list[Row] = []
        while sum(len(row.ids_P) for row in made) < tokens:
            kind = self.rng.choices(list(MIX), list(MIX.values()))[0]
            text = self.rng.choice(self.pools[kind]) if kind in self.pools else chatml(getattr(self.primer, kind)())
            ids_P = np.array(self.tokenizer.encode(text, add_special_tokens=False)[:LONGEST], np.int32)
            weight_P = np.full(len(ids_P), 0.5, np.float32) if kind == "text" else self._answers(ids_P)
            weight_P[0] = 0
            mask_P = weight_P > 0
            if mask_P.any():
                made.append(Row(ids_P, mask_P, weight_P[mask_P], np.full(int(mask_P.sum()), np.nan, np.float32)))
        return made

    def _answers(self, ids_P: np.ndarray) -> np.ndarray:
        """float32 [P]; 1 on what the assistant says, its stop token included."""
        weight_P = np.zeros(len(ids_P), np.float32)
        ids, size = ids_P.tolist(), len(self.header)
        for start in range(size, len(ids)):
            if ids[start - size : start] == self.header:
                end = (
                    ids.index(self.tokenizer.eos_token_id, start) + 1
                    if self.tokenizer.eos_token_id in ids[start:]
                    else None
                )
                weight_P[start:end] = 1
        return weight_P


def ensure(cache: Path | None = None, *, steps: int = STEPS) -> Path:
    """The directory of the tiny model; trained first where it is not there yet, which takes two to three minutes.

    cache: where models are kept, by default `policies.local.cache_directory()`.
    steps: optimiser steps; fewer make a model without skill, for tests.
    """
    from etude.policies.local import tiny_directory

    name = tiny_directory().name if steps == STEPS else f"{tiny_directory().name}-{steps}-steps"
    target = (cache or tiny_directory().parent) / name
    if not (target / "model.safetensors").exists():
        train(target, steps)
    return target


def train(target: Path, steps: int, seed: int = 0) -> None:
    """Train from nothing and write the directory; a kill on the way leaves nothing behind."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from etude.core.parts import load
    from etude.policies.local import local, save

    lessons = Lessons(seed, desk_episodes=min(1500, 10 * steps))
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
        load("objectives/likelihood")(),
        lr=2e-3,
        schedule="cosine",
        warmup=max(steps // 15, 1),
        steps=steps,
        weight_decay=0.05,
    )
    with progress(steps, "train the tiny model", "steps") as advance:
        for _ in range(steps):
            learner.step_rows(lessons.batch(BATCH_TOKENS))
            advance()
    policy.save(target)
