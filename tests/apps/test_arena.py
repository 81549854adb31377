"""`etude arena` and `etude env references`."""

import json

import pytest

from etude.apps.cli.main import main
from etude.evaluation import normalise


def test_policies_meet_and_are_rated(tiny_policy, capsys):
    command = [
        "arena",
        "chance",
        tiny_policy.name,
        "--games",
        "nim",
        "--battles",
        "2",
        "--agent",
        "{native: {note: x}}",
    ]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["chance", tiny_policy.name], "a model that was hardly trained does not know how to move"
    assert sum(one["mean"] for one in found.values()) == pytest.approx(2000)
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("chance")
    assert main(["arena", "chance", "chance"]) == 2
    assert "arena takes two policies or more" in capsys.readouterr().err
    assert main(["arena", "chance", tiny_policy.name, "--games", "town"]) == 2
    assert "no game 'town' for two" in capsys.readouterr().err


def test_references_are_measured_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(normalise, "FILE", tmp_path / "references.json")
    normalise.write("other", {"x": {"random": 0, "oracle": 1, "episodes": 1}})
    assert main(["env", "references", "{arcade: {games: [stock], held: [lights], size: 25}}"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "lights"
    kept = json.loads(normalise.FILE.read_text())
    assert sorted(kept) == ["arcade", "other"]
    assert {name: (one["oracle"], one["episodes"]) for name, one in kept["arcade"].items()} == {
        "stock": (1.0, 5),
        "lights": (1.0, 5),
    }
    assert normalise.known("arcade") == kept["arcade"]
    assert main(["env", "references", "devices"]) == 2
    assert "'devices' does not tell the legal actions" in capsys.readouterr().err
    normalise.known.cache_clear()
