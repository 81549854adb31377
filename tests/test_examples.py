"""The examples as a reader would run them, on a model that is small and knows nothing."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import etude
from etude.policies.scripted import scripted

from .engine_fixtures import make_tokenizer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A directory with a Llama of one layer; its weights are random, but it soon stops."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory, tokenizer = tmp_path_factory.mktemp("model"), make_tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    stop = tokenizer.eos_token_id
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=stop, bos_token_id=None, **shape))
    with torch.no_grad():  # a direction that all tokens share, along which the stop token has about one chance in ten
        llama.model.embed_tokens.weight[:, 0] = 3.0
        llama.lm_head.weight[stop, 0] = 0.65
    llama.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def script(name: str, *arguments: str, cwd: Path) -> str:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, "ETUDE_QUIET": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_custom_agent(model, tmp_path):
    printed = script("custom_agent.py", str(model), cwd=tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    told = json.loads((run / "report.json").read_text())
    assert told["counts"]["success"]["tasks"] >= 30
    assert told["verdict"] in ("better", "narrower", "no different", "worse")
    assert f"report   {run.relative_to(tmp_path) / 'report.html'}" in printed
    assert re.search(r"collect: (\d+) episodes by expert, \1 solved", (run / "log.txt").read_text())
    assert (run / "model" / "model.safetensors").exists()


async def test_custom_agent_is_paid_for_the_right_order_alone():
    world = runpy.run_path(str(ROOT / "examples" / "custom_agent.py"))["world"]
    task = world.tasks("test")[0]
    right = {"item": task.data["item"], "count": task.data["want"] - task.data["have"]}
    for arguments, reward in ((right, 1.0), (right | {"count": right["count"] + 1}, 0.0)):
        call = etude.ToolCall("order", arguments)
        policy = scripted([etude.Message("assistant", tool_calls=(call,)), etude.Message("assistant", "Ordered.")])
        (played,) = etude.rollout(policy, [task])  # an event loop is running here, as in a notebook
        assert played.episodes[0].reward == reward


def test_rl_by_hand(model, tmp_path):
    lines = script("rl_by_hand.py", "2", str(model), cwd=tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["before", "step", "step", "after"]
