"""The `tiny` model: about two million parameters, trained here from nothing in two minutes.

It can read a short list of tools and copy arguments, not much more: enough to be a base on which methods are told apart
in seconds. What it learns from is `synthesis.primer`; this file is its tokenizer, its shape and its training.
"""

import contextlib
import hashlib
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.progress import progress
from etude.policies.local import cache_directory, tiny_directory
from etude.rendering import tools as plain
from etude.synthesis import primer

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
NOTATION = [plain.INSTRUCTION, '<tool_call>{"name": "', '", "arguments": {"', '"}}</tool_call>', "}}</tool_call>",
            "<tool_response>", "</tool_response>", '": "', '", "', '": ', ": str, ", ": str): ", ": int): "]  # fmt: skip
"""Frequent pieces of the tool notation, one token each."""
# A space is a token of its own, so that a word has the same tokens wherever it stands and copying it is one step;
# short words take the spaces around them with them, which keeps sentences short.
PIECE = r" (?:a|an|and|are|as|be|by|for|from|in|is|it|not|of|on|or|that|the|this|to|with) |_?\p{L}+|\p{N}|\n+| +|[^\s\p{L}\p{N}]+"
VOCABULARY = 2048
LONGEST = 320  # tokens of one training row

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


def start_copying(model: Any, emb=0.1) -> None:
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
        embedding.normal_(std=emb)
        embedding[:, 0] = 3 * emb
        constant = 3 * emb / embedding.square().mean().sqrt()  # channel 0 after normalisation
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
    """Batches of rows to train on; the same seed draws the same ones."""

    def __init__(self, seed: int, mix: dict, desk_n=1500, context=0.1):
        self.rng = random.Random(seed)
        self.texts = primer.docstrings()
        self.mix, self.context = mix, context
        self.primer = primer.Primer(primer.common_words(self.texts), seed)
        self.pool = {"text": self.texts, "chat": [chatml(d) for d in primer.chat()], "desk": [chatml(d) for d in primer.desk_episodes(desk_n)]}
        self.tokenizer = train_tokenizer(
            self.texts[::2] + self.pool["chat"] * 3 + self.pool["desk"][:400] + [chatml(self.primer.errand()) for _ in range(1000)]
            + [chatml(self.primer.lookup()) for _ in range(500)]
        )
        self.pos = {k: len(v) for k, v in self.pool.items()}
        self.start = self.tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
        self.end = self.tokenizer.eos_token_id

    def draw(self, kind):
        if kind in self.pool:
            pool = self.pool[kind]
            if self.pos[kind] >= len(pool):
                self.rng.shuffle(pool); self.pos[kind] = 0
            self.pos[kind] += 1
            if kind == "text":
                n = self.pos[kind]
                self.pos[kind] += 2
                return "\n".join(pool[n-1:n+2])
            return pool[self.pos[kind] - 1]
        return chatml(getattr(self.primer, kind)())

    def batch(self, tokens: int, share=None):
        from etude.training.learner import Row
        mix = share or self.mix
        out, total = [], 0
        while total < tokens:
            kinds = self.rng.choices(list(mix), list(mix.values()), k=8)
            encs = self.tokenizer._tokenizer.encode_batch([self.draw(k) for k in kinds], add_special_tokens=False)
            for k, e in zip(kinds, encs):
                ids = np.array(e.ids[:LONGEST], np.int32)
                weight = np.ones(len(ids), np.float32) * (0.5 if k == "text" else self.context if k == "chat" else 0)
                if k != "text":
                    a, b, c = self.start
                    at = np.flatnonzero((ids[:-2] == a) & (ids[1:-1] == b) & (ids[2:] == c)) + 3
                    for s in at:
                        e_ = np.flatnonzero(ids[s:] == self.end)
                        weight[s : s + e_[0] + 1 if len(e_) else len(ids)] = 1
                mask = weight > 0; mask[0] = False
                out.append(Row(ids, mask, weight[mask], np.full(mask.sum(), np.nan, np.float32)))
                total += len(ids)
        return out


def _m(r, k):
    m = np.zeros(len(r.ids_P), bool)
    m[r.mask_P] = (r.weight_N == 1) | (k == "text")
    return m


def proto(out, steps=300, tokens=4096, lr=3e-3, mix=None, context=0.1, seed=0, micro=2048, log=True, init=0.02, betas=None, desk_n=1500, wd=0.05, curriculum=0, emb=0.1, warm=None):
    import torch, time, logging
    from transformers import LlamaConfig, LlamaForCausalLM
    from etude.objectives import likelihood
    from etude.policies.local import local, save
    from etude.training.learner import Learner
    t0 = time.time()
    L = Lessons(seed, mix, context=context, desk_n=desk_n)
    print("data", time.time() - t0)
    torch.manual_seed(seed)
    tk = L.tokenizer
    cfg = LlamaConfig(vocab_size=len(tk), pad_token_id=tk.pad_token_id, eos_token_id=tk.eos_token_id, bos_token_id=None, initializer_range=init, **SHAPE)
    net = LlamaForCausalLM(cfg); start_copying(net, emb); save(net, tk, Path(out))
    policy = local(str(out))
    policy.model.config._attn_implementation = "eager"
    learner = Learner(policy, likelihood(), lr=lr, schedule="cosine", warmup=warm or steps // 15, steps=steps, micro_tokens=micro, weight_decay=wd)
    held = {k: [r for r in L.batch(600, {k: 1})[:8]] for k in L.mix}
    t0 = time.time(); comp = 0; hist=[]
    for s in range(steps):
        share = {"echo": 0.5, "lookup": 0.5} if s < curriculum else None
        b = L.batch(tokens, share)
        with torch.autocast("cpu", torch.bfloat16):
            f = learner.step_rows(b)
        comp += sum(len(r.ids_P) for r in b); hist.append(f["loss"])
        if s % max(1, steps // 4) == 0 or s == steps - 1:
            nll = {}
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                for k, rows_ in held.items():
                    lp = policy.logprob([r.ids_P for r in rows_], [_m(r, k) for r in rows_])[0]
                    nll[k] = round(-lp.mean().item(), 3)
            print(nll)
            print(s, f"loss {np.mean(hist[-10:]):.3f} gn {f['gradient_norm']:.2f} {comp/(time.time()-t0):.0f} tok/s {time.time()-t0:.0f} s", flush=True)
    policy.model.config._attn_implementation = "sdpa"
    policy.save(out)
    return policy, L
