"""The run directory: what a killed run leaves behind is always consistent, and a resumed one writes the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.core import rundir
from etude.core.errors import CheckpointError, EtudeError, RecipeError
from etude.core.rundir import Lines, RunDirectory, atomic_write, run_id

RECIPE: dict[str, Any] = {"name": "small", "seed": 0, "stages": [{"train": {"epochs": 2, "lr": 1e-4}}]}

# A run that can be resumed: two metric lines and one checkpoint a step, then the state.
WRITER = """
import sys
from etude.core.rundir import RunDirectory

with RunDirectory(sys.argv[1], {"name": "small", "seed": 0, "stages": [{"train": {"epochs": 2, "lr": 1e-4}}]}) as run:
    for step in range(run.state.get("step", 0), int(sys.argv[2])):
        run.metrics.append({"step": step, "loss": 1 / (step + 3)})
        run.timings.append({"step": step, "seconds": 0.1})
        run.metrics.append({"step": step, "text": "x" * 5000})
        run.write("checkpoints/last", str(step + 1) * 100)
        run.save_state(stage="train", step=step + 1)
"""


def start(path: Path, steps: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(steps)], stderr=subprocess.PIPE)


def test_killed_at_any_instant_it_resumes_to_the_same_bytes(tmp_path: Path):
    rng = random.Random(0)
    killed, torn = tmp_path / "killed", 0
    for _ in range(12):
        process, before = start(killed, 100_000), rundir.read_state(killed).get("step", 0)
        while rundir.read_state(killed).get("step", 0) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        state = rundir.read_state(killed)  # always whole
        metrics = (killed / "metrics.jsonl").read_bytes()
        assert len(metrics) >= state["metrics_position"]
        torn += len(metrics) > state["metrics_position"]
        with RunDirectory(killed, RECIPE) as run:
            rows = run.metrics.rows()
            assert [row["step"] for row in rows] == [step for step in range(state["step"]) for _ in "ab"]
            checkpoint = (killed / "checkpoints" / "last").read_text()
            assert checkpoint in (str(state["step"]) * 100, str(state["step"] + 1) * 100)
        assert not list(killed.rglob(".*.tmp"))
    steps = rundir.read_state(killed)["step"] + 3
    assert torn > 0  # otherwise nothing was tested
    for path in (killed, tmp_path / "undisturbed"):
        process = start(path, steps)
        assert process.wait() == 0, process.communicate()[1].decode()
    for name in ("metrics.jsonl", "state.json", "run.yaml", "checkpoints/last"):
        assert (killed / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_second_process_is_told_who_has_it(tmp_path: Path):
    with RunDirectory(tmp_path / "run", RECIPE):
        assert rundir.status(tmp_path / "run") == "running"
        with pytest.raises(EtudeError, match=f"run is in use by process {os.getpid()}\nwait for it to end"):
            RunDirectory(tmp_path / "run", RECIPE)
        other = start(tmp_path / "run", 1)
        assert f"in use by process {os.getpid()}" in other.communicate()[1].decode()
    RunDirectory(tmp_path / "run", RECIPE).close()  # free again


def test_another_recipe_is_refused_by_its_differing_keys(tmp_path: Path):
    RunDirectory(tmp_path, RECIPE).close()
    other = {"name": "small", "stages": [{"train": {"epochs": 3, "lr": 1e-4}}], "title": "new"}
    with pytest.raises(RecipeError) as caught:
        RunDirectory(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path} holds a run of another recipe\n"
        "seed: 0 there, absent now\n"
        "stages[0].train.epochs: 2 there, 3 now\n"
        "title: absent there, 'new' now\n"
        "choose another directory with --out"
    )
    RunDirectory(tmp_path, RECIPE).close()  # the refusal left it unlocked and as it was


def test_status_tells_where_a_run_stopped(tmp_path: Path):
    assert rundir.status(tmp_path) == "stopped"
    with RunDirectory(tmp_path, RECIPE) as run:
        run.save_state(stage="train", step=4)
    assert rundir.status(tmp_path) == "stopped at stage train, step 4"
    with RunDirectory(tmp_path, RECIPE) as run:
        assert run.state == {"stage": "train", "step": 4, "metrics_position": 0}
        run.save_state(finished=True)
    assert rundir.status(tmp_path) == "finished"


def test_metrics_that_somebody_cut_are_noticed(tmp_path: Path):
    with RunDirectory(tmp_path, RECIPE) as run:
        run.metrics.append({"loss": 1.0})
        run.save_state(step=1)
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"metrics.jsonl has 0 bytes where the saved state counts 14"):
        RunDirectory(tmp_path, RECIPE)


def test_lines_keep_every_digit_and_drop_a_torn_end(tmp_path: Path):
    lines = Lines(tmp_path / "m.jsonl")
    third = 1 / 3
    lines.append({"x": third, "y": np.float32(0.1), "z": np.arange(2), "nan": float("nan"), "bad": [float("inf")]})
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {
        "x": third,
        "y": float(np.float32(0.1)),
        "z": [0, 1],
        "nan": None,
        "bad": [None],
    }
    whole = lines.position()
    lines.close()
    with open(tmp_path / "m.jsonl", "ab") as file:
        file.write(b'{"x": 0.3')
    lines = Lines(tmp_path / "m.jsonl")
    assert lines.position() == whole
    lines.append({"x": 2})
    assert [row["x"] for row in lines.rows()] == [third, 2]
    lines.truncate_after(whole)
    lines.append({"x": 3})
    assert [row["x"] for row in lines.rows()] == [third, 3]
    lines.close()


def test_atomic_write_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    atomic_write(tmp_path / "a", "old")
    atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(tmp_path / "a", "half")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_run_id_depends_on_the_recipe_alone():
    assert run_id(RECIPE) == run_id(dict(reversed(list(RECIPE.items()))))
    assert run_id(RECIPE) != run_id({**RECIPE, "seed": 1})
    name, _, digits = run_id(RECIPE).rpartition("-")
    assert name == "small"
    assert len(digits) == 4
    int(digits, 16)


def test_log_and_write(tmp_path: Path):
    with RunDirectory(tmp_path, RECIPE) as run:
        run.log("first")
        run.log("second")
        assert run.write("report.html", "<p>é").read_text(encoding="utf-8") == "<p>é"
    assert [line.split("  ")[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first", "second"]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path):
    RunDirectory(tmp_path, RECIPE).close()
    checkpoint = tmp_path / "checkpoints" / ".03-train-000001.tmp"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".report.html.1.tmp").write_bytes(b"half")
    RunDirectory(tmp_path, RECIPE).close()
    assert not list(tmp_path.rglob(".*.tmp"))
