"""Checkpoints that are complete or not there."""

from pathlib import Path

import pytest
import torch

from etude.core.errors import CheckpointError
from etude.objectives import likelihood
from etude.training import checkpoint
from etude.training.learner import Learner

from .conftest import flat


@pytest.fixture
def learner(policy) -> Learner:
    return Learner(policy, likelihood(), lr=1e-2)


def test_the_last_ones_are_kept_oldest_first(learner, dialogues, tmp_path):
    for step in range(1, 5):
        learner.step(dialogues)
        assert checkpoint.save(learner, tmp_path / "c", f"train-{step:06d}") == tmp_path / "c" / f"train-{step:06d}"
    assert checkpoint.names(tmp_path / "c") == ["train-000003", "train-000004"]
    assert checkpoint.names(tmp_path / "nowhere") == []


def test_the_same_name_is_replaced(learner, dialogues, tmp_path):
    checkpoint.save(learner, tmp_path, "a")
    learner.step(dialogues)
    checkpoint.save(learner, tmp_path, "a")
    moved = flat(learner.policy.model)
    learner.step(dialogues)
    checkpoint.load(learner, tmp_path, "a")
    assert torch.equal(flat(learner.policy.model), moved)
    assert learner.done == 1


def test_one_that_was_being_written_when_the_run_died_is_not_there(learner, dialogues, tmp_path, monkeypatch):
    checkpoint.save(learner, tmp_path, "a-1")

    def dies(directory: Path) -> None:
        (directory / "learner.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(learner, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(learner, tmp_path, "a-2")
    assert checkpoint.names(tmp_path) == ["a-1"]
    checkpoint.save(learner, tmp_path, "a-2")
    assert checkpoint.names(tmp_path) == ["a-1", "a-2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-1", "a-2"]


def test_one_that_is_gone_is_an_error_that_names_the_others(learner, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint 'b' in .*there: none"):
        checkpoint.load(learner, tmp_path, "b")
    checkpoint.save(learner, tmp_path, "a")
    with pytest.raises(CheckpointError, match=r"no checkpoint 'b' in .*there: a\)"):
        checkpoint.load(learner, tmp_path, "b")
