"""What a recipe will take, and what a run took."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import etude
from etude.apps import floors, spent
from etude.apps import plan as planning
from etude.apps.cli.main import main
from etude.apps.floors import Speed
from etude.apps.plan import Foretold, Phase, plan, tree_tokens
from etude.apps.run import SCHEMA, phases
from etude.core import recipe as recipes
from etude.core.errors import EtudeError
from etude.trajectory import Message, Trajectory

from ..engine_fixtures import tiny_model_directory  # noqa: F401

SPEED = Speed({1: 0.01, 8: 0.02, 32: 0.04}, prefill=2e-4, train=1e-3, step=0.5)
DESK = """
policy: {{local: {{model: {model}, context: 1024}}}}
environment: desk
environment.difficulty: 1
evaluate: {{tasks: 0}}
stages:
"""


@pytest.fixture
def recipe(tmp_path, tiny_policy, monkeypatch):
    """Called with stages: a recipe on the desk, of a hardly trained tiny model."""
    monkeypatch.setenv("ETUDE_QUIET", "1")

    def write(*stages: str) -> Path:
        file = tmp_path / "small.yaml"
        file.write_text(DESK.format(model=tiny_policy.name) + "".join(f"  - {stage}\n" for stage in stages))
        return file

    return write


@pytest.mark.parametrize("name", recipes.files())
def test_every_recipe_can_be_planned(name, tiny_policy, monkeypatch):
    monkeypatch.setattr(planning, "SAMPLE", 8)
    loaded = recipes.load(name)
    recipes.assign(loaded, "policy", {"local": {"model": tiny_policy.name, "context": 1024}})
    found = plan(loaded, SPEED)
    names = [name for name, _, _ in phases(recipes.resolve(loaded, SCHEMA))]
    assert [phase.name for phase in found.phases] == names
    total = found.total
    assert 0 < total.sampled < total.sampled_at_most
    assert 0 < total.seconds < total.seconds_at_most
    assert 0 < total.trained < total.computed or name == "es"
    assert total.memory > planning.PROCESS
    assert all("cannot be foretold" in note for note in found.notes)


def test_what_was_foretold_of_demonstrations_is_what_happens(recipe):
    file = recipe("collect: {by: expert, episodes: 10}", "train: {batch: 4, epochs: 2}")
    found = plan(recipes.load(file), SPEED)
    collected, train = found.phases
    path = etude.run(str(file), out=str(file.parent / "run")).path
    rows = [json.loads(line) for line in (path / "timings.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["stage"] == "01-train"]
    assert (collected.episodes, train.steps) == (10, len(rows))
    assert train.trained == sum(row["tokens_trained"] for row in rows)
    assert train.computed >= sum(row["tokens_computed"] for row in rows)  # at best tasks share their beginnings
    assert train.seconds == pytest.approx(1e-3 * train.computed + 0.5 * 6)


def test_practice_costs_its_play_and_its_steps(recipe, monkeypatch):
    monkeypatch.setattr(planning, "SAMPLE", 2)
    stage = "practise: {{steps: 3, tasks: {}, group: 2, updates: 2, max_tokens: 64, max_turns: 4}}"
    found = plan(recipes.load(recipe(stage.format(2))), SPEED).phases[0]
    assert (found.episodes, found.steps, found.sampled_at_most) == (12, 6, 12 * 64 * 4)
    assert found.trained == 2 * found.sampled, "each episode is trained twice"
    twice = plan(recipes.load(recipe(stage.format(4))), SPEED).phases[0]
    assert (twice.episodes, twice.steps) == (24, 6)
    assert twice.trained == pytest.approx(2 * found.trained)


def test_answers_of_a_world_without_expert_are_as_long_as_they_may_be():
    told = Foretold(None, SPEED, Phase("00-collect"))  # type: ignore[arg-type]
    told._play(planning.Played([], 0.5, True, prefilled=10, turns=[[1]]), 64, max_tokens=5, max_turns=2)
    phase = told.phase
    assert (phase.sampled, phase.sampled_at_most, phase.prefilled) == (640, 640, 640)
    assert phase.seconds == pytest.approx(640 * 2e-4 + 640 / 32 * 0.04 + 64 * 0.5)
    assert "no expert" in told.notes[0]


def test_a_group_reads_its_prompt_once():
    trajectory = Trajectory(id="t", task="t")
    prompt = trajectory.add(Message("user", "?"), None, ids_T=np.arange(9), sampled_T=np.zeros(9, bool))
    leaves = []
    for _ in range(2):
        said = trajectory.add(Message("assistant", "!"), prompt, ids_T=np.arange(5), sampled_T=np.arange(5) > 1)
        told = trajectory.add(Message("tool", "."), said, ids_T=np.arange(4), sampled_T=np.zeros(4, bool))
        leaves.append(trajectory.add(Message("assistant", "!"), told, ids_T=np.arange(3), sampled_T=np.arange(3) > 0))
    trajectory.episodes = [etude.trajectory.Episode(leaf) for leaf in leaves]
    played = planning.Played([trajectory], 0.0, False)
    planning._count(played)
    assert played.turns == [[3, 2], [3, 2]]
    assert played.row == 21
    # 9 + 2 of the prompt, 4 + 1 before the second turn; the second episode computes the prompt's last token alone
    assert played.prefilled == ((11 + 5) + (1 + 5)) / 2
    assert tree_tokens(trajectory) == 9 + 2 * 12


def test_memory_is_that_of_the_weights_the_cache_and_the_step(tiny_policy):
    parameters = sum(p.numel() for p in tiny_policy.model.parameters())
    cache = planning.KEPT * 2 * 300 * floors.cache_bytes(tiny_policy.model)
    playing = planning.peak_memory(tiny_policy, length=300, training=False)
    assert playing == planning.PROCESS + 4 * parameters + cache
    assert (
        planning.peak_memory(tiny_policy, length=9000, training=False) > playing
    )  # no longer than the context, though
    few, many = (planning.peak_memory(tiny_policy, length=300, training=True, rows=rows) for rows in (100, 200))
    assert few > playing + parameters * (4 + 8)  # gradients and moments
    assert (
        planning.peak_memory(tiny_policy, length=300, training=True, rows=100, reference=True) == few + 4 * parameters
    )
    assert many > few


def test_plan_and_doctor_of_a_run(recipe, monkeypatch, capsys):
    monkeypatch.setattr(floors, "BYTES", 1 << 20)
    file = recipe(
        "collect: {by: expert, episodes: 4}",
        "train: {batch: 4}",
        "practise: {steps: 1, tasks: 2, group: 2, max_tokens: 4, max_turns: 1}",
    )
    assert main(["plan", str(file), "stages[1].epochs=2"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == ["phase", "00-collect", "01-train", "02-practise", "all"]
    assert main(["plan", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["episodes"] == 8
    path = etude.run(str(file), out=str(file.parent / "run")).path
    assert main(["doctor", str(path)]) == 0
    assert "02-practise" in capsys.readouterr().out
    assert main(["doctor", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    cost = json.loads((path / "state.json").read_text())["cost"]
    assert {phase["phase"]: phase["seconds"] for phase in told} == {name: row["seconds"] for name, row in cost.items()}
    assert all(phase["floor"] + sum(phase["held"].values()) == pytest.approx(phase["seconds"]) for phase in told)
    assert [phase["floor"] > 0 for phase in told] == [False, True, True]


def test_time_is_divided_by_cause():
    amounts = {
        "seconds": 20.0, "tokens_prefilled": 1000, "tokens_sampled": 320, "decoding_steps": 40, "tokens_trained": 100,
        "tokens_computed": 3000, "optimiser_steps": 2, "seconds_decoding": 3.0,
        "seconds_waiting": 1.5, "seconds_computing": 8.0, "seconds_moving": 1.25, "seconds_saving": 0.75,
    }  # fmt: skip
    found = spent.account("03-practise", amounts, SPEED)
    assert found.floor == pytest.approx(0.4 + 0.2 + 3.0 + 1.0)  # 10 steps of 32, read, trained, 2 steps
    assert (found.share, found.slots) == (pytest.approx(4.6 / 20), 8)
    assert found.held == pytest.approx(
        {
            "experts, data and measuring": 5.5,
            "training": 8.0 - 3.0,
            "decoding": 3.0 - 40 * 0.02 - 0.2,  # 40 steps of 8 in the mean
            "worlds, agents and rendering": 1.5,
            "checkpoints": 0.75,
            "few slots decoding": 40 * 0.02 - 10 * 0.04,
            "optimiser": 0.25,
        }
    )
    assert list(found.held) == sorted(found.held, key=lambda cause: -found.held[cause])


def test_doctor_wants_a_run_that_counted(tmp_path, capsys):
    assert main(["doctor", "quickstart"]) == 2
    assert "for a recipe that has not run yet:  etude plan quickstart" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text(yaml.dump({"policy": None}))
    (tmp_path / "state.json").write_text(json.dumps({"cost": {"00-train": {"seconds": 1.0}}}))
    with pytest.raises(EtudeError, match="holds no account of its time"):
        spent.spent(tmp_path)
