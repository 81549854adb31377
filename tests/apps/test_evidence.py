"""apps/evidence: arms, figures and the file that `etude systems` reads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from etude.apps import evidence
from etude.apps.evidence import crossed_bootstrap, invalid, overall, prompt, run_evidence, verdict
from etude.core import recipe as recipes
from etude.core.catalogue import shows_effect
from etude.core.errors import EtudeError, RecipeError
from etude.evaluation.statistics import Figure
from etude.trajectory import Episode, Message, Trajectory

from ..engine_fixtures import tiny_model_directory  # noqa: F401

STUDY = """
policy: {{local: {{model: {model}, context: 1024}}}}
environment: lookup
stages:
  - collect: {{by: expert, episodes: 6}}
  - train: {{epochs: 2, batch: 3, lr: 1e-2}}
evaluate: {{tasks: 6, temperature: 1.0, max_tokens: 24, max_turns: 2, losses: false}}
evidence:
  against: {{still: {{lr: 0.0}}, prompted: {{stages: [], environment.shots: 1}}}}
  measure: {measure}
  seeds: 3
"""


MEASURED = "[tokens, success, prompt, {success: {difficulty: 0}}, {difference: [prompt, success]}]"


@pytest.fixture
def study(tmp_path: Path, tiny_model_directory, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ETUDE_QUIET", "1")
    shutil.copytree(tiny_model_directory, "model")
    config = json.loads(Path("model/config.json").read_text())  # a token a byte: questions are long
    Path("model/config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))

    def write(
        measure: str = "[tokens, success, prompt, {success: {difficulty: 0}}, {difference: [prompt, success]}]",
    ) -> str:
        Path("study.yaml").write_text(STUDY.format(model=tmp_path / "model", measure=measure))
        return "study.yaml"

    return write


def test_a_study_is_run_written_and_found_again(study, monkeypatch):
    made = run_evidence(study())
    told = json.loads(Path("evidence/study.json").read_text())
    assert told == json.loads(json.dumps(made.to_json()))
    assert shows_effect(told)
    assert list(told["arms"]) == ["base", "recipe", "still", "prompted"]
    assert told["measures"] == ["tokens", "success", "prompt", "success of difficulty 0", "prompt less success"]
    assert len(told["figures"]) == 5 * 3
    arms = told["arms"]
    differences = np.array(arms["recipe"]["prompt"]) - np.array(arms["recipe"]["success"])
    assert arms["recipe"]["prompt less success"] == pytest.approx(differences)
    assert all(len(values) == 3 for arm in arms.values() for values in arm.values())
    assert arms["still"]["tokens"] == arms["base"]["tokens"]  # a learning rate of 0 changes nothing
    assert arms["recipe"]["tokens"] != arms["base"]["tokens"]
    assert arms["prompted"]["prompt"][0] > arms["base"]["prompt"][0] + 50
    assert arms["prompted"]["tokens_trained"] == [0, 0, 0]
    assert arms["recipe"]["tokens_trained"] == arms["still"]["tokens_trained"] != [0, 0, 0]
    assert told["figures"]["tokens, - still"]["value"] == pytest.approx(
        np.mean(arms["recipe"]["tokens"]) - np.mean(arms["still"]["tokens"])
    )
    assert told["made"]["machine"]["torch"]
    assert "tokens, - still" in str(made)

    def never(*args, **kwargs):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr("etude.apps.run.run", never)
    again = run_evidence(study())
    assert again.figures == made.figures


def test_arms_that_measured_the_same_measure_once(study):
    run_evidence(study("success"))
    logs = {path.parent.name: path.read_text() for path in Path("runs/evidence").glob("*/state.json")}
    costs = {name.rsplit("-", 1)[0]: json.loads(text)["cost"] for name, text in logs.items()}
    assert "00-before" in costs["study-recipe-0"]
    assert "00-before" not in costs["study-still-0"]  # the same policy, world and seed: copied
    assert "00-before" in costs["study-prompted-0"]  # another world


def test_a_measure_that_is_not_there_is_named(study):
    with pytest.raises(EtudeError, match=r"no row 'sucess'; did you mean 'success'"):
        run_evidence(study("sucess"))
    with pytest.raises(RecipeError, match="describes no study"):
        run_evidence("quickstart")


def test_a_study_of_its_own_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("law.yaml").write_text("system: 138\nevidence: {study: evaluation/razor, seeds: 4}\n")
    figures = {
        "gap": {"value": 0.5, "interval": [0.1, 0.9], "better": 1},
        "R2": {"value": 1, "interval": [1, 1], "better": 0},
    }
    found = {"figures": figures, "arms": {"rl": {"forgetting": [0.1] * 4}}, "decide": ["gap"]}
    monkeypatch.setattr("etude.evaluation.razor.study", lambda seeds: found if list(seeds) == [0, 1, 2, 3] else {})
    made = run_evidence("law.yaml")
    assert (made.verdict, made.seeds, made.system) == ("effect shown", [0, 1, 2, 3], 138)
    assert made.figures["R2"]["verdict"] == "not judged"


def test_verdicts():
    assert [verdict(x, 1) for x in ([0.1, 0.2], [-0.1, 0.2], [-0.2, -0.1])] == ["effect shown", "null", "negative"]
    assert [verdict(x, -1) for x in ([0.1, 0.2], [-0.1, 0.2], [-0.2, -0.1])] == ["negative", "null", "effect shown"]
    assert verdict([1.0, 2.0], 0) == "not judged"
    told = {v: {"verdict": v} for v in ("effect shown", "null", "negative")}
    assert overall([told["effect shown"]] * 2) == "effect shown"
    assert overall([told["effect shown"], told["null"]]) == "null"
    assert overall([told["effect shown"], told["negative"]]) == "negative"
    assert overall([]) == "null"


def test_the_bootstrap_draws_seeds_and_items():
    """The difference varies over seeds alone, or over items alone; both must widen the interval."""

    def by(seed: float, item: float) -> list[Figure]:
        return [Figure({f"t{n}": (seed * s + item * (n % 2),) for n in range(40)}) for s in range(3)]

    none = by(0, 0)
    seeds, items = crossed_bootstrap(none, by(1, 0)), crossed_bootstrap(none, by(0, 1))
    assert (seeds.mean, seeds.low, seeds.high) == (1.0, 0.0, 2.0)  # the mean of three draws from 0, 1, 2
    assert items.mean == 0.5
    assert 0.3 < items.low < 0.4 < 0.6 < items.high < 0.7  # 0.5 with a standard error of 0.5 / sqrt(40)
    ratio = [Figure({"a": (1, 2), "b": (3, 2)}, "ratio")] * 3
    assert crossed_bootstrap([Figure({"a": (0, 2), "b": (0, 2)}, "ratio")] * 3, ratio).mean == 1.0


def test_what_is_read_from_episodes():
    t = Trajectory("t", "t")
    leaf = t.add(Message("user", "go"), None, ids_T=np.arange(5, dtype=np.int32))
    said = {"version": 0, "ids_T": np.arange(4, dtype=np.int32), "sampled_T": np.array([False, True, True, True])}
    leaf = t.add(Message("assistant", "<tool_call>{"), leaf, scores={"malformed": 1.0}, **said)
    leaf = t.add(Message("tool", "error: malformed"), leaf)
    leaf = t.add(Message("assistant", "call"), leaf, **said)
    leaf = t.add(Message("tool", "error: no such booking"), leaf)
    leaf = t.add(Message("assistant", "done"), leaf, **said)
    episode = Episode(leaf)
    assert invalid(t, episode) == (2, 3)
    assert prompt(t, episode) == (5 + 3, 1)


def test_every_shipped_study_can_be_read():
    from etude.apps.run import SCHEMA

    found = 0
    for name in recipes.files():
        recipe = recipes.load(name)
        if not recipe.data["evidence"]:
            continue
        found += 1
        options = recipes.resolve(recipe, {**SCHEMA, "evidence": evidence.settings})["evidence"]
        assert options["seeds"] >= 3, name
        if not options["study"]:
            for arm in recipes.baselines(recipe).values():
                recipes.resolve(arm, SCHEMA)
    assert found >= 7
