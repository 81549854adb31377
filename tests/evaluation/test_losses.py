"""The losses of a byte-level bigram model, whose divergence from another one is known exactly."""

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from etude.core.errors import EtudeError
from etude.evaluation import losses
from etude.evaluation.losses import DATA, Losses, Probe, episode_confidence, measure, measure_losses, prepare, refused
from etude.protocols import Action, Sampling
from etude.trajectory import Boundary, Episode, Failure, Message, Trajectory


class Bytes:
    """A tokenizer of bytes, and the renderer around it."""

    def __init__(self):
        self.tokenizer = self

    def __len__(self):
        return 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(int(i) for i in ids).decode(errors="replace")

    def render(self, messages, tools=None, add_generation_prompt=True):
        text = "".join(f"{m.role}: {m.content}\n" for m in messages) + "assistant: " * add_generation_prompt
        return np.array(self.encode(text), np.int32)


@dataclass
class Bigram:
    """A byte follows a byte as often as in the general text, flattened by a temperature."""

    heat: float = 1.0
    name: str = "bigram"
    version: int = 0
    renderer: Bytes = field(default_factory=Bytes)

    def __post_init__(self):
        ids = np.array(list((DATA / "general_text.txt").read_bytes()))
        counts = np.full((256, 256), 0.001)
        np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
        self.logits = np.log(counts) / self.heat
        self.logits -= np.log(np.exp(self.logits).sum(1, keepdims=True))

    async def act(self, trajectory, leaf, *, sampling, seed):
        raise NotImplementedError

    async def generate(self, prompts, *, sampling, seeds):
        return [self.sample(p, sampling, np.random.default_rng(s)) for p, s in zip(prompts, seeds, strict=True)]

    def sample(self, prompt, sampling: Sampling, rng):
        ids, last = [], int(prompt[-1])
        for _ in range(sampling.max_tokens):
            row = self.logits[last]
            last = int(rng.choice(256, p=np.exp(row))) if sampling.temperature else int(row.argmax())
            ids.append(last)
        return Action(Message("assistant", self.renderer.decode(ids)), ids_T=np.array(ids, np.int32), truncated=True)

    async def logprobs(self, sequences, starts):
        return [self.logits[s[b - 1 : -1], s[b:]].astype(np.float32) for s, b in zip(sequences, starts, strict=True)]


class Refuser(Bigram):
    """Says no to everything that sounds as if it wanted help with harm, and to locks."""

    async def generate(self, prompts, *, sampling, seeds):
        texts = [self.renderer.decode(p).lower() for p in prompts]
        said = ["I’m sorry, but I cannot help." if "help me" in t or "lock" in t else "Gladly." for t in texts]
        return [Action(Message("assistant", s), ids_T=np.array(self.renderer.encode(s), np.int32)) for s in said]


class Knower(Bigram):
    """Gives each byte of a right option -1 nat and each byte of a wrong one -3; other text -2."""

    async def logprobs(self, sequences, starts):
        questions = [json.loads(x) for x in (DATA / "general_questions.jsonl").read_text().splitlines()]
        right = {f"Question: {q['question']}\nAnswer: {q['options'][q['answer']]}" for q in questions}
        every = {f"Question: {q['question']}\nAnswer: {o}" for q in questions for o in q["options"]}
        texts = [self.renderer.decode(s) for s in sequences]
        value = [-1.0 if t in right else -3.0 if t in every else -2.0 for t in texts]
        return [np.full(len(s) - b, v) for s, b, v in zip(sequences, starts, value, strict=True)]


class Flat(Bigram):
    """Every byte has the same probability, so only a length could tell options apart."""

    async def logprobs(self, sequences, starts):
        return [np.full(len(s) - b, -np.log(256)) for s, b in zip(sequences, starts, strict=True)]


async def test_a_base_has_lost_nothing_against_itself():
    got = await measure_losses(Bigram())
    assert set(got.figures["KL"].items.values()) == {(0.0, 48)}
    assert got.figures["KL k3"].value == 0.0
    assert got.figures["benign refused"].value == 0.0
    assert len(got.answers) == 32 + 8


async def test_both_estimators_find_the_exact_divergence():
    base, policy = Bigram(), Bigram(heat=1.5)
    probe = await prepare(base)
    figures = (await measure(policy, probe)).figures
    states = np.concatenate([s[b - 1 : -1] for s, b in zip(probe.sequences, probe.starts, strict=True)])
    exact_V = (np.exp(base.logits) * (base.logits - policy.logits)).sum(1)
    exact = exact_V[states].mean()
    assert exact > 0.05
    assert figures["KL"].value == pytest.approx(exact, rel=0.25)
    assert figures["KL k3"].value == pytest.approx(exact, rel=0.25)
    assert all(total >= 0 for total, _ in figures["KL k3"].items.values())
    # the other direction is another number, well apart from the estimate
    assert abs(figures["KL"].value - exact) < abs(figures["KL"].value + exact)


async def test_a_flattened_model_is_more_perplexed_and_more_diverse():
    probe = await prepare(Bigram())
    sharp, base, flat = [(await measure(Bigram(h), probe)).figures for h in (0.5, 1.0, 2.0)]
    assert base["perplexity"].value < flat["perplexity"].value
    assert sharp["distinct-2"].value < base["distinct-2"].value
    assert len(base["perplexity"].items) == 30
    text = (DATA / "general_text.txt").read_text().strip().split("\n\n")[0]
    ids = Bytes().encode(text)
    by_hand = -sum(Bigram().logits[a, b] for a, b in itertools.pairwise(ids))
    assert base["perplexity"].items["paragraph-01"] == (pytest.approx(by_hand, rel=1e-4), len(ids) - 1)


async def test_question_scores_by_hand():
    figures = (await measure_losses(Knower())).figures
    assert figures["general"].value == 1.0
    confidence = 1 / (1 + 3 * np.exp(-2))  # softmax of mean scores -1, -3, -3, -3
    assert figures["calibration"].value == pytest.approx(1 - confidence, abs=1e-6)
    # with equal mean scores the first option is taken: right in a quarter, as positions are balanced, and calibrated
    figures = (await measure_losses(Flat())).figures
    assert figures["general"].value == 0.25
    assert figures["calibration"].value == pytest.approx(0.0, abs=1e-6)


async def test_refusals_are_counted_on_each_side():
    got = await measure_losses(Refuser())
    rows = [json.loads(x) for x in (DATA / "refusals.jsonl").read_text().splitlines()]
    says_no = {r["id"] for r in rows if "help me" in r["request"].lower() or "lock" in r["request"].lower()}
    for name, harmful in (("benign refused", False), ("harmful refused", True)):
        items = got.figures[name].items
        assert items == {r["id"]: (float(r["id"] in says_no),) for r in rows if r["harmful"] is harmful}
        assert 0 < got.figures[name].value < 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I can’t help with that.", True),
        ("I'm sorry, but no.", True),
        ("As for poison, I CANNOT ASSIST.", True),
        ("Sure! Cut along the stone.", False),
        ("I'm sorry to hear that your cat is ill.", False),
    ],
)
def test_refusal_phrases(answer, expected):
    assert refused(answer) is expected


async def test_probe_and_losses_survive_json():
    probe = await prepare(Bigram())
    again = Probe(**json.loads(json.dumps(probe.to_json())))
    one, two = await measure(Bigram(1.3), probe), await measure(Bigram(1.3), again)
    assert one == two == Losses.from_json(json.loads(json.dumps(one.to_json())))


async def test_another_tokenizer_is_refused():
    probe = await prepare(Bigram())
    other = Probe(**{**probe.to_json(), "vocabulary": 300})
    with pytest.raises(EtudeError, match="bigram has 256 tokens, and its base bigram 300"):
        await measure(Bigram(), other)


def episode(task, *spoken):
    """One episode per (logprobs, reward or boundary)."""
    t = Trajectory(id=task, task=task)
    root = t.add(Message("user", "go"), None, ids_T=np.zeros(3, np.int32), sampled_T=np.zeros(3, bool))
    for logprobs, reward in spoken:
        logprob_T = np.array([np.nan, *logprobs], np.float32)
        leaf = t.add(
            Message("assistant"), root, ids_T=np.zeros(len(logprob_T), np.int32), sampled_T=~np.isnan(logprob_T),
            logprob_T=logprob_T, version=0,
        )  # fmt: skip
        failure = Failure(reward, "x") if isinstance(reward, Boundary) else None
        t.episodes.append(Episode(leaf, reward=None if failure else reward, failure=failure))
    return t


async def test_episode_confidence_is_paired_with_success():
    got = episode_confidence(
        [
            episode("a", (np.log([0.5, 0.5]), 1.0), (np.log([0.9, 0.9]), 0.0)),
            episode("b", (np.log([0.25, 1.0]), 1.0), (np.log([0.1]), Boundary.TOOL)),
            episode("c", (np.log([0.1]), Boundary.TOOL)),
        ]
    )
    assert got == {"a": (pytest.approx(0.7), 0.5), "b": (pytest.approx(0.5), 1.0)}
    probe = await prepare(Bigram())
    figures = (await measure(Bigram(), probe, trajectories=[episode("a", (np.log([0.8]), 1.0))])).figures
    assert figures["episodes' calibration"].value == pytest.approx(0.2)
    assert "episodes' calibration" not in (await measure(Bigram(), probe)).figures


def test_shipped_items_are_whole_and_balanced():
    questions = losses._rows("general_questions.jsonl")
    assert len(questions) == len({q["id"] for q in questions}) == len({q["question"] for q in questions}) == 200
    assert [sum(q["answer"] == p for q in questions) for p in range(4)] == [50] * 4
    assert all(len(set(q["options"])) == 4 for q in questions)
    refusals = losses._rows("refusals.jsonl")
    assert [sum(r["harmful"] is h for r in refusals) for h in (False, True)] == [16, 16]
    assert len(set(losses._open_prompts())) == losses.PROBES + 8


def test_measuring_does_not_import_torch():
    code = "import sys, etude.evaluation.html, etude.evaluation.losses; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
