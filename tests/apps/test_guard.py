"""practise stops when the policy has moved as far as its guard allows."""

import json
from pathlib import Path

import pytest

from ..engine_fixtures import tiny_model_directory  # noqa: F401

RECIPE = """
policy: {{local: {{model: {model}, context: 400}}}}
environment: lookup
stages:
  - practise: {{steps: 4, tasks: 2, group: 2, lr: {lr}, guard: {guard}, scoring: [{{length: {{budget: 4}}}}],
      {more} objective: {{clipped: {{kl: 0.1}}}}, max_tokens: 12, max_turns: 1}}
"""


@pytest.mark.exact(138)
@pytest.mark.parametrize(
    ("lr", "guard", "steps", "more"),
    [(0.03, 0.0, 4, ""), (0.03, 1e-4, 1, ""), (0.0, 1e-4, 4, ""), (0.03, 1e-4, 1, "ahead: 2, correction: truncate,")],
)
def test_the_guard_ends_the_stage(tmp_path: Path, tiny_model_directory, monkeypatch, lr, guard, steps, more):  # noqa: F811
    from etude.apps.run import run

    monkeypatch.setenv("ETUDE_QUIET", "1")
    recipe = tmp_path / "guarded.yaml"
    recipe.write_text(RECIPE.format(model=tiny_model_directory, lr=lr, guard=guard, more=more))
    finished = run(str(recipe), out=str(tmp_path / "run"))
    rows = [json.loads(line) for line in (finished.path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == steps
    assert ("stopped by its guard" in (finished.path / "log.txt").read_text()) == (steps == 1)
    if guard and not lr:  # a policy that does not move is at distance 0
        assert [row["kl"] for row in rows[1:]] == pytest.approx([0.0] * 3, abs=1e-4)
    run(str(recipe), out=str(tmp_path / "run"))  # finished is finished
