"""Two processes train as one does: losses, weights, trajectories and files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from etude.core.errors import PartError
from etude.objectives import likelihood
from etude.training import distributed
from etude.training.learner import Learner
from etude.trajectory.store import Store

from ..engine_fixtures import tiny_model_directory  # noqa: F401
from .ranks import CASES, run

ROOT = Path(__file__).parent.parent.parent
# practice comes first, and hardly moves: an untrained model's tokens are all but equally likely, and where weights
# differ in their last bits, a draw may fall on the next one
RECIPE = """
policy: {local: {model: MODEL, context: 1024}}
environment: desk
environment.difficulty: 1
stages:
  - collect: {by: expert, episodes: 6}
  - practise: {steps: 2, tasks: 3, group: 2, lr: 1e-6, credit: {outcome: {baseline: 0.5}}, guard: 9.0,
      max_tokens: 6, max_turns: 1, checkpoint_seconds: 0}
  - train: {batch: 4, lr: 1e-3, checkpoint_seconds: 0}
evaluate: {tasks: 3, max_tokens: 6, max_turns: 1, losses: false}
"""


def launch(*command: str) -> None:
    """Run a module in two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    place = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": place, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def trained(tiny_model_directory, tmp_path_factory) -> Path:  # noqa: F811
    """What two processes left of every case."""
    out = tmp_path_factory.mktemp("ranks")
    launch("tests.training.ranks", str(tiny_model_directory), str(out))
    return out


def near(figures: list[dict[str, float]], bound: float) -> list:
    return [pytest.approx(step, rel=bound, abs=bound) for step in figures]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(trained, tiny_model_directory, tmp_path, case):  # noqa: F811
    two = json.loads((trained / f"{case}.json").read_text())
    figures, weights = run(case, str(tiny_model_directory), tmp_path)
    assert two["ranks"] == 2
    assert two["same"], "both ranks have the same weights"
    # bfloat16 rounds the gradient of each micro-batch, and two ranks cut other ones
    bound = 1e-2 if "bfloat16" in case else 1e-5
    assert two["figures"] == near(figures, bound)
    assert len({step["loss"] for step in figures}) == 4
    apart = np.abs(np.load(trained / f"{case}.npy") - weights)
    assert np.quantile(apart, 0.999) <= bound
    assert apart.max() <= 10 * bound  # AdamW divides by a gradient's size: where that is rounding, rounding is a step
    assert two["again"] == two["figures"][2:], "going on from the checkpoint is exact"
    alone, _ = run(case, str(tiny_model_directory), trained, start=True)
    assert alone == near(two["again"], bound), "one process goes on from the checkpoint of two"


def test_a_recipe_runs_in_two_processes_as_in_one(tmp_path, tiny_policy):
    tiny_policy.save(tmp_path / "model")
    (tmp_path / "small.yaml").write_text(RECIPE.replace("MODEL", str(tmp_path / "model")))
    launch("etude", "run", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "two"))
    from etude.apps.run import run as run_recipe

    run_recipe(str(tmp_path / "small.yaml"), out=str(tmp_path / "one"))
    one, two = (
        [json.loads(line) for line in (tmp_path / place / "metrics.jsonl").read_text().splitlines()]
        for place in ("one", "two")
    )
    assert [row.pop("stage") for row in one] == ["02-practise"] * 2 + ["03-train"] * 2
    assert [row.pop("stage") for row in two] == ["02-practise"] * 2 + ["03-train"] * 2
    assert two == near(one, 1e-5)
    assert all(row["gradient_norm"] > 0 for row in one)
    assert (tmp_path / "two" / "report.json").exists()
    assert (tmp_path / "two" / "model" / "model.safetensors").exists()
    there, mine = Store(tmp_path / "two" / "trajectories"), Store(tmp_path / "one" / "trajectories")
    assert there.keys() == mine.keys()
    for key in mine.keys():  # noqa: SIM118 (a store is no mapping)
        for a, b in zip(there.read([key]), mine.read([key]), strict=True):
            assert (a.id, [e.seed for e in a.episodes], a.messages) == (b.id, [e.seed for e in b.episodes], b.messages)
    costs = [json.loads((tmp_path / place / "state.json").read_text())["cost"] for place in ("one", "two")]
    for phase in costs[0]:
        for key in ("tokens_sampled", "tokens_trained"):
            assert costs[0][phase][key] == costs[1][phase][key]


def test_units_are_divided_by_their_cost(monkeypatch):
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    found = []
    for place in range(2):
        monkeypatch.setattr(distributed, "rank", lambda place=place: place)
        found.append(distributed.share([1, 9, 2, 3, 4]))
    assert found == [[0, 1], [2, 3, 4]]


def test_one_process_has_everything():
    assert (distributed.ranks(), distributed.rank()) == (1, 0)
    assert distributed.share([3, 1, 2]) == [0, 1, 2]
    assert distributed.gather("mine") == ["mine"]
    assert distributed.total({"loss": 2.0}) == {"loss": 2.0}
    with distributed.joined():
        assert distributed.first(lambda: "done") == "done"


def test_an_unknown_way_to_divide_is_refused(load_policy):
    with pytest.raises(PartError, match="parallel='split' is not one of data, shard"):
        Learner(load_policy(), likelihood(), parallel="split")
