"""Checkpoints that are complete or not there: written beside, renamed into place, the last k kept."""

import os
import shutil
from pathlib import Path

from etude.core.errors import CheckpointError
from etude.training import distributed
from etude.training.learner import Learner


def save(learner: Learner, checkpoints: Path, name: str, keep: int = 2) -> Path:
    """Write checkpoint `name` below `checkpoints` and drop all but the last `keep`; names sort by age."""
    target, temporary = checkpoints / name, checkpoints / f".{name}.tmp"
    if distributed.rank():  # gives its shards and waits until the first has written
        learner.save(temporary)
        distributed.gather(None)
        return target
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    learner.save(temporary)
    for file in temporary.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    if target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)
    for old in names(checkpoints)[:-keep]:
        shutil.rmtree(checkpoints / old)
    distributed.gather(None)
    return target


def load(learner: Learner, checkpoints: Path, name: str) -> None:
    """Raises CheckpointError naming the checkpoints that are there."""
    if name not in names(checkpoints):
        there = f"there: {', '.join(names(checkpoints)) or 'none'}"
        raise CheckpointError(f"no checkpoint {name!r} in {checkpoints} ({there}); start the run again elsewhere")
    learner.load(checkpoints / name)


def names(checkpoints: Path) -> list[str]:
    """Complete checkpoints, oldest first."""
    found = checkpoints.iterdir() if checkpoints.exists() else ()
    return sorted(p.name for p in found if p.is_dir() and not p.name.startswith("."))
