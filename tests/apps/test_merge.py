"""Merging over files: streaming, shards, what is copied, what is refused; and the verb."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import etude
from etude.apps import merge as engine
from etude.apps.cli.main import main
from etude.core.errors import MergeError, PartError, PolicyError
from etude.core.parts import build

from ..engine_fixtures import make_tokenizer

SHAPES = {"a.weight": (4, 6), "b.weight": (6,), "c.weight": (3, 4), "d.weight": (2, 2, 2)}


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def write(folder: Path, tensors: dict[str, torch.Tensor], **files: str) -> str:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    for name, text in {"config": '{"model_type": "llama"}', **files}.items():
        (folder / f"{name}.json").write_text(text)
    return folder.name


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with the models `base`, `one` and `two`."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "one", "two")):
        write(tmp_path / name, weights(seed))
    return tmp_path


def in_memory(method: str, **settings) -> dict[str, torch.Tensor]:
    combine, base, one, two = build(f"weights/merge/{method}", **settings), *map(weights, range(3))
    return {name: combine(base[name], [one[name], two[name]], name) for name in SHAPES}


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


# -- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic", "ties", "dare", "breadcrumbs"])
def test_streaming_gives_what_merging_in_memory_gives(method, here):
    etude.merge(["one", "two"], method=method, base="base", out="merged")
    found, expected = load_file(here / "merged" / "model.safetensors"), in_memory(method)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_no_more_than_one_tensor_per_model_is_held(monkeypatch):
    held, most = set(), []

    def read(self, name, real=engine.Tensors.read):
        tensor = real(self, name)
        held.add(id(tensor))
        weakref.finalize(tensor, held.discard, id(tensor))
        most.append(len(held))
        return tensor

    monkeypatch.setattr(engine.Tensors, "read", read)
    etude.merge(["one", "two"], method="ties", base="base", out="merged")
    assert len(most) == 3 * len(SHAPES)
    assert max(most) == 3


def test_shards_hold_no_more_than_asked_for_and_are_read_again(here):
    record = etude.merge(["one", "two"], method="linear", out="merged", shard_gb=100e-9)  # 96, 24 + 48, 32 bytes
    files = sorted(path.name for path in (here / "merged").glob("*.safetensors"))
    assert files == [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    assert (record["files"], record["tensors"], record["parameters"]) == (3, 4, 50)
    index = json.loads((here / "merged" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 200}
    for name, tensor in in_memory("linear").items():
        assert torch.equal(load_file(here / "merged" / index["weight_map"][name])[name], tensor)
    etude.merge(["merged", "merged"], method="linear", out="again")
    again = load_file(here / "again" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in in_memory("linear").items())


def test_a_tensor_has_the_type_of_the_base_and_is_merged_in_float32(here):
    base, one = ({name: tensor.bfloat16() for name, tensor in weights(seed).items()} for seed in (0, 1))
    write(here / "half base", base)
    write(here / "half one", one)
    etude.merge(["half one"], method={"task_arithmetic": {"scale": 0.7}}, base="half base", out="merged")
    etude.merge(["one", "half one"], method="linear", out="first")
    merged = load_file(here / "merged" / "model.safetensors")
    for name, start in base.items():
        expected = start.float() + 0.7 * (one[name].float() - start.float())
        assert torch.equal(merged[name], expected.bfloat16())
    assert {t.dtype for t in load_file(here / "first" / "model.safetensors").values()} == {torch.float32}


def test_a_buffer_of_whole_numbers_is_copied_where_all_agree(here):
    for name, last in (("x", 7), ("y", 7), ("z", 8)):
        write(here / name, {"w": torch.ones(2), "steps": torch.tensor([1, last])})
    etude.merge(["x", "y"], method="linear", out="merged")
    assert load_file(here / "merged" / "model.safetensors")["steps"].tolist() == [1, 7]
    with pytest.raises(MergeError, match=r"tensor 'steps' is torch\.int64 and differs in 'z'"):
        etude.merge(["x", "z"], method="linear", out="other")


def test_configuration_and_tokenizer_are_the_bases(here):
    for name in ("base", "one", "two"):
        make_tokenizer("{{ messages }}" if name == "two" else "").save_pretrained(name)
        (here / name / "config.json").write_text(json.dumps({"of": name}))
        (here / name / "trainer_state.json").write_text("{}")
    record = etude.merge(["one", "two"], method={"ties": {"density": 0.5}}, base="base", out="merged")
    assert json.loads((here / "merged" / "config.json").read_text()) == {"of": "base"}
    assert (here / "merged" / "tokenizer.json").read_text() == (here / "base" / "tokenizer.json").read_text()
    assert not (here / "merged" / "trainer_state.json").exists()
    assert record["notes"] == ["'two' has another chat template than 'base', whose template is kept"]
    assert json.loads((here / "merged" / "merge.json").read_text()) == record
    assert record["settings"] == {"density": 0.5}
    etude.merge(["one", "two"], method="linear", out="first")
    assert json.loads((here / "first" / "config.json").read_text()) == {"of": "one"}


def test_a_run_is_its_model(here):
    (here / "runs").mkdir()
    (here / "runs" / "run.yaml").write_text("name: x\n")
    with pytest.raises(MergeError, match="no model at 'runs/model'"):
        etude.merge(["runs", "one"], method="linear", out="merged")
    write(here / "runs" / "model", weights(5))
    etude.merge(["runs"], method="linear", out="merged")
    assert torch.equal(load_file(here / "merged" / "model.safetensors")["a.weight"], weights(5)["a.weight"])


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(match: str, models=("one", "two"), error=MergeError, **given) -> None:
    with pytest.raises(error, match=match):
        etude.merge(models, **{"method": "linear", "out": "merged", **given})
    assert not Path("merged").exists()
    assert not left_behind(Path())


def test_models_that_do_not_fit(here):
    write(here / "less", {k: v for k, v in weights(0).items() if k[0] in "ac"})
    refused("'one' holds tensor 'b.weight' and 1 more, which 'less' does not", ("one", "less"))
    refused("'two' holds tensor 'b.weight' and 1 more, which 'less' does not", ("less", "two"))
    write(here / "wide", weights(0) | {"b.weight": torch.ones(7)})
    refused(r"tensor 'b.weight' is \[6\] in 'one' and \[7\] in 'wide'", ("one", "wide"))
    refused(r"tensor 'b.weight' is \[7\] in 'wide' and \[6\] in 'one'", base="wide")


def test_tokenizers_that_differ(here):
    other = make_tokenizer()
    other.add_tokens(["<extra>"])
    make_tokenizer().save_pretrained("one")
    other.save_pretrained("two")
    ids = f"None in 'one' and {other.convert_tokens_to_ids('<extra>')} in 'two'"
    refused(f"1 tokens differ: '<extra>' has id {ids}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite(here, value):
    broken = weights(0)
    broken["c.weight"][0, 0] = value
    write(here / "broken", broken)
    refused("tensor 'c.weight' of 'broken' holds NaN or an infinity", ("one", "broken"))
    write(here / "half", {name: tensor.half() for name, tensor in weights(0).items()})
    large = {"task_arithmetic": {"scale": 1e6}}
    refused(r"'a.weight' of the merged model, as torch\.float16, holds", method=large, base="half")


def test_what_is_not_there(here):
    refused("there are no models to merge", (), base="base")
    refused("no model at 'nowhere/at-all'", ("one", "nowhere/at-all"))
    (here / "pickled").mkdir()
    (here / "pickled" / "pytorch_model.bin").write_bytes(b"")
    refused("no safetensors in 'pickled'", ("one", "pickled"), PolicyError)
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    refused("cannot read the weights of 'adapter': .*model.safetensors", ("one", "adapter"))
    (here / "cut").mkdir()
    (here / "cut" / "model.safetensors").write_bytes((here / "one" / "model.safetensors").read_bytes()[:300])
    refused("cannot read the weights of 'cut'", ("one", "cut"))


def test_methods_and_settings_that_are_not_there():
    refused("no part 'weights/merge/tyes'; did you mean 'ties'", error=PartError, method="tyes")
    refused("takes no argument 'densty'", error=PartError, method={"ties": {"densty": 1}})
    wrong = {"ties": {"density": "half"}}
    refused("weights/merge/ties, density: 'half' is not float", error=PartError, method=wrong, base="base")
    refused("weights/merge/ties adds up what each model changed", method="ties")


def test_what_stands_there_is_kept():
    with pytest.raises(MergeError, match="'two' is there already"):
        etude.merge(["one"], method="linear", out="two")
    assert torch.equal(load_file("two/model.safetensors")["a.weight"], weights(2)["a.weight"])


# -- the verb ------------------------------------------------------------------------------------------------------


def test_the_verb(capsys):
    argv = ["merge", "one", "two", "--method", "ties", "--base", "base", "--set", "density=0.5", "weights=[0.5,0.5]"]
    assert main([*argv, "--out", "merged"]) == 0
    shown = "4 tensors, 50 parameters of 2 models merged by weights/merge/ties; use the result with  policy=merged\n"
    assert capsys.readouterr().out == shown
    expected = in_memory("ties", density=0.5, weights=[0.5, 0.5])
    assert torch.equal(load_file("merged/model.safetensors")["a.weight"], expected["a.weight"])
    assert main([*argv, "--out", "second", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"] == {"density": 0.5, "weights": [0.5, 0.5]}
    assert record["models"] == ["one", "two"]


@pytest.mark.parametrize("wrong", ["density", "=3", "density=[0.3"])
def test_the_verb_refuses_what_is_no_setting(capsys, wrong):
    assert main(["merge", "one", "two", "--method", "ties", "--out", "merged", "--set", wrong]) == 2
    assert f"etude: {wrong!r} is not a setting; write key=value" in capsys.readouterr().err


def test_the_result_is_a_policy(tiny_policy):
    tiny_policy.save("tuned")
    etude.merge(["tuned", "tuned"], method="slerp", out="merged")
    merged = etude.policy("merged").model.state_dict()
    for name, tensor in tiny_policy.model.state_dict().items():
        torch.testing.assert_close(merged[name], tensor)
