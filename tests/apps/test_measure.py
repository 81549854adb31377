"""Measuring before and after: what a stopped measurement keeps, and how far the policy has moved on the task."""

import asyncio
import json
from pathlib import Path

import pytest

from etude.core.progress import Stopped

RECIPE = """
policy: {{local: {{model: {model}, context: 1024}}}}
environment: desk
environment.difficulty: 1
stages:
  - collect: {{by: expert, episodes: 4}}
  - train: {{lr: {lr}, batch: 2, warmup: 0}}
evaluate: {{tasks: 3, domains: 3, max_tokens: 4, max_turns: 1, losses: {losses}}}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_policy, monkeypatch):
    monkeypatch.setenv("ETUDE_QUIET", "1")
    tiny_policy.save(tmp_path / "model")

    def write(**options) -> str:
        file = tmp_path / "measured.yaml"
        file.write_text(RECIPE.format(model=tmp_path / "model", **options))
        return str(file)

    return write


def test_a_stopped_measurement_goes_on_with_the_next_set(tmp_path: Path, recipe, monkeypatch):
    from etude.apps import measure
    from etude.apps.run import run

    begun, original = [], measure._play

    async def play(work, what, *rest):
        begun.append(what)
        work.stop.requested = begun == ["evaluate before: success", "evaluate before: new domains"]
        await original(work, what, *rest)

    monkeypatch.setattr(measure, "_play", play)
    file = recipe(lr=1e-3, losses="false")
    with pytest.raises(Stopped):
        run(file, out=str(tmp_path / "run"))
    run(file, out=str(tmp_path / "run"))
    assert begun[1:4] == ["evaluate before: new domains"] * 2 + ["evaluate after: success"]
    run(file, out=str(tmp_path / "undisturbed"))
    one, other = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("run", "undisturbed"))
    assert one["figures"] == other["figures"]


@pytest.mark.exact(138)
@pytest.mark.parametrize("lr", [0.0, 1e-2])
def test_the_distance_on_the_task_is_in_every_report(tmp_path: Path, recipe, lr):
    from etude.apps.run import run

    report = run(recipe(lr=lr, losses="true"), out=str(tmp_path / "run")).report
    row = next(row for row in report.rows if row.name == "task KL")
    assert row.before == pytest.approx(0, abs=1e-4)  # the sampler and the scorer round differently
    assert row.after > 0.1 if lr else row.after == pytest.approx(0, abs=1e-4)
    assert row.items == 3
    assert row.tolerance is None


def test_the_distance_is_the_mean_over_sampled_tokens():
    import numpy as np

    from etude.evaluation.razor import divergence, forward_kl
    from etude.trajectory import Episode, Message, Trajectory

    trajectory = Trajectory("t", "task")
    leaf = trajectory.add(Message("user", "?"), None, ids_T=np.array([5, 6]), sampled_T=np.zeros(2, bool))
    said = {"ids_T": np.array([7, 8]), "sampled_T": np.ones(2, bool), "logprob_T": np.array([-1.0, -2.0])}
    trajectory.episodes = [Episode(trajectory.add(Message("assistant", "!"), leaf, version=0, **said))]

    class Moved:
        async def logprobs(self, sequences, starts):
            return [np.array([-9.0, -1.5, -4.0]) for _ in sequences]

    assert asyncio.run(divergence(Moved(), [trajectory])) == {"t": (2.5, 2)}
    assert asyncio.run(forward_kl(Moved(), [trajectory])) == 1.25
    assert np.isnan(asyncio.run(forward_kl(Moved(), [])))
