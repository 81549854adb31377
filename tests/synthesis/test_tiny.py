"""The tiny model's tokenizer, its start, its data, and the cache; whether it learns is measured, not tested."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import PolicyError
from etude.policies.local import local, resolve, tiny_directory
from etude.rendering import Renderer, notations
from etude.rendering import tools as plain
from etude.synthesis import primer, tiny
from etude.trajectory import Message, ToolCall

TOOL = {
    "name": "move_lamp",
    "description": "move a lamp to another day",
    "parameters": {
        "type": "object",
        "properties": {"lamp": {"type": "string"}, "day": {"type": "string"}},
        "required": ["lamp", "day"],
    },
}
CALL = ToolCall("move_lamp", {"lamp": "B-203", "day": "Fri 7"})
DIALOGUE = [
    Message("system", "You work at a desk."),
    Message("user", "Move lamp B-203 to Fri 7."),
    Message("assistant", tool_calls=(CALL,)),
    Message("tool", "ok"),
    Message("assistant", "Lamp B-203 is moved."),
]


@pytest.fixture(scope="module")
def lessons() -> tiny.Lessons:
    return tiny.Lessons(seed=0, desk_episodes=20)


@pytest.fixture(scope="module")
def renderer(tiny_policy) -> Renderer:
    return tiny_policy.renderer


# -- tokenizer -------------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_every_text_survives(renderer: Renderer, text: str) -> None:
    assert renderer.decode(renderer.encode(text)) == text


def test_size_and_special_tokens(renderer: Renderer) -> None:
    tokenizer = renderer.tokenizer
    assert len(tokenizer) == tiny.VOCABULARY
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, None)
    assert renderer.stop_text == "<|im_end|>"
    assert not renderer.native_tools


def test_digits_and_words_have_the_same_tokens_wherever_they_stand(renderer: Renderer) -> None:
    assert [renderer.decode([i]) for i in renderer.encode("4471")] == ["4", "4", "7", "1"]
    alone = renderer.encode("lamp").tolist()
    for text in ("the lamp", '{"lamp": 1}', "(lamp: str"):
        ids = renderer.encode(text).tolist()
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids)))


def test_a_call_is_short(renderer: Renderer) -> None:
    frame = [renderer.decode([i]) for i in renderer.encode(plain.call_text(ToolCall("f", {"x": "1"})))]
    assert frame == ['<tool_call>{"name": "', "f", '", "arguments": {"', "x", '": "', "1", '"}}</tool_call>']


def test_template_adds_nothing(renderer: Renderer) -> None:
    assert renderer.text([Message("user", "hi")]) == "<|im_start|>user\nhi<|im_end|>\n"
    assert renderer.text([Message("user", "hi")], generate=True).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_lessons_are_tokenised_as_episodes_are(lessons: tiny.Lessons) -> None:
    renderer = Renderer(lessons.tokenizer)
    played = renderer.render(DIALOGUE, [TOOL], add_generation_prompt=False)
    taught = renderer.encode(tiny.chatml(plain.as_plain_chat(DIALOGUE, [TOOL])))
    assert taught[: len(played)].tolist() == played.tolist()
    assert renderer.decode(taught[len(played) :]) == "\n"  # behind the last stop token, which ends an episode


def test_answers_are_what_the_assistant_says(lessons: tiny.Lessons) -> None:
    renderer = Renderer(lessons.tokenizer)
    ids_P = renderer.encode(tiny.chatml(plain.as_plain_chat(DIALOGUE, [TOOL])))
    said = renderer.decode(ids_P[lessons.answers(ids_P) == 1])
    assert said == plain.call_text(CALL) + "<|im_end|>Lamp B-203 is moved.<|im_end|>"


# -- data ------------------------------------------------------------------------------------------------------------


def test_errands_can_be_done_by_reading(lessons: tiny.Lessons) -> None:
    maker = primer.Primer(lessons.primer.words, seed=3)
    for _ in range(200):
        dialogue = maker.errand()
        for asked, called in itertools.pairwise(dialogue):
            if not called["content"].startswith("<tool_call>"):
                continue
            message, problem = notations.parse(called["content"])
            assert not problem
            (call,) = message.tool_calls
            assert f"\n{call.name}({', '.join(call.arguments)}" in re.sub(r": (str|int)", "", dialogue[0]["content"])
            for value in call.arguments.values():
                assert str(value).lower() in asked["content"].lower()


def test_lookups_answer_from_the_list(lessons: tiny.Lessons) -> None:
    for _ in range(100):
        first, *rest = lessons.primer.lookup()
        for message in rest:
            if message["role"] == "assistant":
                assert message["content"] in first["content"]


def test_desk_shows_train_tasks_of_few_domains() -> None:
    dialogues = primer.desk_episodes(40)
    assert len(dialogues) == 40
    assert {m["role"] for d in dialogues for m in d} == {"system", "user", "assistant"}
    assert len({d[0]["content"].splitlines()[0].split(".")[0] for d in dialogues}) <= primer.DESK["domains"]


def test_general_chat_comes_with_etude() -> None:
    assert len(primer.chat()) >= 100
    assert json.dumps(primer.chat()[0])


# -- the start -------------------------------------------------------------------------------------------------------


def test_copying_is_there_before_training() -> None:
    """In `a b c … a b`, what stood behind the first `a b` becomes likelier than what stands anywhere else."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def rank(copying: bool) -> float:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=500, **tiny.SHAPE))
        if copying:
            tiny.start_copying(model)
        ids_RP = torch.stack([torch.randperm(500)[:40] for _ in range(20)])
        ids_RP = torch.cat([ids_RP, ids_RP[:, 10:12]], 1)  # begins to repeat: token 12 should follow
        with torch.no_grad():
            logits_RV = model(ids_RP).logits[:, -1]
        seen_RP = logits_RV.gather(1, ids_RP[:, :40])
        return float((seen_RP > seen_RP[:, 12:13]).sum(1).float().mean())  # of 40 candidates, how many are likelier

    assert rank(copying=True) < 5 < rank(copying=False)


# -- training and the cache --------------------------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_weights(tmp_path: Path, tiny_policy) -> None:
    again = local(str(tiny.ensure(tmp_path, steps=2)), context=1024)
    for a, b in zip(tiny_policy.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_shape(tiny_policy) -> None:
    assert 1.9e6 < sum(p.numel() for p in tiny_policy.model.parameters()) < 2.1e6
    assert tiny_policy.dtype == torch.float32


def test_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    with pytest.raises(PolicyError, match="etude models get tiny"):
        resolve("tiny")
    trained: list[Path] = []

    def train(target: Path, steps: int) -> None:
        trained.append(target)
        target.mkdir()
        (target / "model.safetensors").touch()

    monkeypatch.setattr(tiny, "train", train)
    assert tiny.ensure() == tiny.ensure() == resolve("tiny") == tiny_directory()
    assert trained == [tiny_directory()]
    assert tiny.ensure(steps=2) != tiny_directory()  # a miniature never passes for the model


def test_a_kill_leaves_nothing_that_passes_for_a_model(tmp_path: Path) -> None:
    script = (
        f"from etude.synthesis import tiny; from pathlib import Path; tiny.ensure(Path({str(tmp_path)!r}), steps=400)"
    )
    environment = os.environ | {"ETUDE_QUIET": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert process.stderr is not None
    deadline = time.monotonic() + 60
    for line in process.stderr:
        if "train the tiny model" in line or time.monotonic() > deadline:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "train the tiny model" in line
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_rows_hold_weights_where_something_is_learned(lessons: tiny.Lessons) -> None:
    rows = lessons.batch(3000, tiny.MIX)
    assert sum(len(row.ids_P) for row in rows) >= 3000
    for row in rows:
        assert len(row.ids_P) <= tiny.LONGEST
        assert not row.mask_P[0]
        assert row.mask_P.sum() == len(row.weight_N) == len(row.old_logprob_N) > 0
        assert set(np.unique(row.weight_N)) <= {0.5, 1.0}
