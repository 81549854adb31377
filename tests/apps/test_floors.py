"""Floors: counts worked out by hand on a model of two layers, and the command that measures."""

import copy
import json

import pytest
import torch

from etude.apps import floors
from etude.apps.cli.main import main
from etude.core.errors import EtudeError
from etude.weights.full import full
from etude.weights.lora import lora

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401

# 32 channels, 4 heads and 2 key-value heads of 8, 64 in the middle: query, key, value, output, gate, up, down
INNER = 2 * (32 * 32 + 16 * 32 + 16 * 32 + 32 * 32 + 3 * 64 * 32)
NORMS = 5 * 32


def test_counts(policy):  # noqa: F811
    model, head = policy.model, policy.model.get_output_embeddings().weight
    assert [len(floors.linears(model)), sum(m.weight.numel() for m in floors.linears(model))] == [14, INNER]
    assert floors.attention_flops(model, 10) == 4 * 2 * 4 * 8 * 10
    assert floors.cache_bytes(model) == 2 * 2 * 2 * 8 * 4
    assert floors.optimiser_bytes(model) == 28 * (INNER + 2 * head.numel() + NORMS)
    assert floors.optimiser_bytes(model.bfloat16()) == 30 * (INNER + 2 * head.numel() + NORMS)
    assert floors.cache_bytes(model) == 2 * 2 * 2 * 8 * 2


def test_what_stands_still_is_not_differentiated(policy):  # noqa: F811
    assert floors.passes(floors.linears(full().prepare(policy.model))) == 3
    adapted = lora(rank=2).prepare(policy.model)
    adapters = 2 * 2 * (64 + 48 + 48 + 64 + 3 * 96)
    inner = floors.linears(adapted)
    assert sum(m.weight.numel() for m in inner) == INNER + adapters
    assert floors.passes(inner) == pytest.approx((2 * INNER + 3 * adapters) / (INNER + adapters))
    assert floors.optimiser_bytes(adapted) == 28 * adapters


def test_the_floor_adds_up(policy, monkeypatch):  # noqa: F811
    monkeypatch.setattr(floors, "products", lambda weights, rows: 1e-9 * rows * sum(w.numel() for w in weights))
    head = policy.model.get_output_embeddings().weight.numel()
    found = floors.floor(policy.model, read=1e6, triad=1e6, slots=(1, 8))
    assert found.decode == pytest.approx({B: 1e-9 * B * (INNER + head) + B * 272 * 256 / 1e6 for B in (1, 8)})
    attention = 256 * 128 / 2 * 1e-9  # FLOPs at two per multiplication
    assert found.prefill == pytest.approx(1e-9 * INNER + attention)
    assert found.train == pytest.approx(3 * found.prefill)
    assert found.head == pytest.approx(3e-9 * head)
    assert found.step == pytest.approx(28 * (INNER + 2 * head + NORMS) / 1e6)
    assert found.decode_step(4.5) == pytest.approx((found.decode[1] + found.decode[8]) / 2)


def test_a_model_whose_weights_are_elsewhere_has_no_floor():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(EtudeError, match=r"GPT2Model: no floor is known, for 0 of its \d+ weights"):
        floors.linears(model)


async def test_measuring_moves_nothing(policy):  # noqa: F811
    before = copy.deepcopy(policy.model.state_dict())
    speed = await floors.measure(policy, slots=(1, 3))
    assert list(speed.decode) == [1, 3]
    assert all(value > 0 for value in (*speed.decode.values(), speed.prefill, speed.train))
    assert all(torch.equal(before[name], value) for name, value in policy.model.state_dict().items())


def test_doctor_measures(tiny_model_directory, monkeypatch, capsys):  # noqa: F811
    for name, value in {"SIDE": 64, "BYTES": 1 << 20, "GEMM_ROWS": (1, 8)}.items():
        monkeypatch.setattr(floors, name, value)
    assert main(["doctor", "--speed", str(tiny_model_directory), "--json"]) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert list(speed["gflops"]["float32"]) == ["1", "8"]
    assert list(speed["tokens"]) == [*(f"decode {B}" for B in (1, 8, 32, 64)), "prefill", "train"]
    assert all(rate["share"] == pytest.approx(rate["etude"] / rate["floor"]) for rate in speed["tokens"].values())
    from etude.apps.cli.doctor import _print_speed

    _print_speed(speed)
    assert "decode 32" in capsys.readouterr().out
