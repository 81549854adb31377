"""Every recipe of a system runs, cut down to two steps of everything; new ones are found, not listed."""

import json
from typing import Any

import pytest

from etude.apps.run import SCHEMA, run
from etude.core import recipe as recipes
from etude.core.recipe import Recipe

FEW = {
    "episodes": 16, "steps": 2, "tasks": 2, "rounds": 1, "epochs": 1, "population": 2, "batch": 4, "size": 4,
    "max_tokens": 12, "max_turns": 2,
}  # fmt: skip
EASED = {"above": -1.0}  # a model that was hardly trained solves nothing, and a judge that was accepts nothing
SYSTEMS = [name for name, file in recipes.files().items() if recipes.read(file).get("system")]


def cut(value: Any, key: str = "") -> Any:
    """No more than FEW of anything that a stage, or a part in it, is told to do."""
    if isinstance(value, dict):
        return {k: cut(v, k) for k, v in value.items()} | ({"at_least": 0.0} if "score" in value else {})
    if isinstance(value, list):
        return [cut(each) for each in value]
    if key in EASED:
        return EASED[key]
    return min(value, FEW[key]) if key in FEW and isinstance(value, int) else value


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_steps(name, tiny_policy, tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_QUIET", "1")
    recipe = recipes.load(name)
    recipe.data["policy"] = {"local": {"model": tiny_policy.name, "context": 1024}}
    recipe.data["evaluate"], recipe.data["evidence"] = {"tasks": 0}, {}
    filled = recipes.resolve(recipe, SCHEMA)
    filled["stages"] = cut(filled["stages"])
    finished = run(Recipe(name, recipe.file, filled), out=str(tmp_path / "run"))
    state = json.loads((finished.path / "state.json").read_text())
    assert state["finished"]
    trained = {row["stage"] for row in map(json.loads, (finished.path / "metrics.jsonl").read_text().splitlines())}
    verbs = [next(iter(stage)) for stage in filled["stages"]]
    assert len(trained) == sum(verb in ("train", "practise", "iterate", "evolve_weights") for verb in verbs)
    assert (finished.path / "model" / "model.safetensors").exists()
