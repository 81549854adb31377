"""What `import etude` gives, and what it does not load."""

import subprocess
import sys

import pytest

import etude
from etude.core.errors import PartError
from etude.policies.scripted import scripted


def test_importing_etude_loads_nothing_heavy():
    code = "import sys, etude; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "asyncio", "yaml"} & set(loaded)


@pytest.mark.parametrize("name", etude.__all__)
def test_every_public_name_is_there(name):
    assert getattr(etude, name) is not None
    assert name in dir(etude)


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(AttributeError, match=r"no 'polcy'; it has .*policy"):
        etude.polcy  # noqa: B018


def test_parts_are_called_by_their_shelf():
    assert list(etude.credit.rloo([1.0, 0.0, 0.0])) == [1.0, -0.5, -0.5]
    assert etude.objectives.clipped(high=0.28).high == 0.28


def test_rollout_is_a_function_and_still_a_package():
    from etude.rollout.collect import collect

    assert etude.rollout.collect.collect is collect  # type: ignore[attr-defined]
    world = etude.world("desk", difficulty=1)
    tasks = world.sample(2, seed=0)
    for task in tasks:
        (played,) = etude.rollout(scripted(world.solve(task, 0)), [task], agent="native", group=2)
        assert [e.reward for e in played.episodes] == [1.0, 1.0]


def test_a_world_of_ones_own_solves_by_what_it_was_told():
    def score(state, answer, row):
        return float(answer == row["answer"])

    rows = [{"prompt": "Two and two?", "answer": "4", "split": "train"}]
    world = etude.world(tools=[], tasks=rows, score=score, solve=lambda row: [row["answer"]], name="sums")
    (task,) = world.tasks("train")
    assert (world.name, task.environment) == ("sums", world)
    assert world.solve(task, 0) == [etude.Message("assistant", "4")]  # type: ignore[attr-defined]


def test_a_world_needs_a_name_or_tools():
    with pytest.raises(PartError, match="which world"):
        etude.world()  # type: ignore[call-overload]


def test_policy_gives_a_local_model_its_decoder(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from .engine_fixtures import make_tokenizer

    tokenizer = make_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = etude.policy(str(tmp_path), context=128)
    assert policy.generator is not None
    assert policy.context == 128
    assert etude.policy("openai", model="m").name == "openai/m"
