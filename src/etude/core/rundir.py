"""A run's directory: everything written so that a run killed at any instant resumes to the same numbers.

    run.yaml        the resolved recipe         state.json      how far the run is, replaced atomically
    metrics.jsonl   figures, bit-identical      timings.jsonl   wall-clock figures, which no two runs share
    trajectories/   checkpoints/                report.html     report.json     log.txt

The order of writing is the whole trick: metrics grow, then `save_state` records how long they are. What was written
after the last saved state is cut off on opening, and the resumed run writes it again. Timings are not cut: the steps
that a resumed run repeats are in timings.jsonl twice, for they took their time twice.
"""

import datetime
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from etude.core import recipe as recipes
from etude.core.errors import CheckpointError, EtudeError, RecipeError


def run_id(resolved: Mapping[str, Any]) -> str:
    """The name of a resolved recipe's run, `<recipe>-<4 hex>`; the same recipe always gives the same name."""
    canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"))
    return f"{resolved['name']}-{hashlib.sha256(canonical.encode()).hexdigest()[:4]}"


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Replace a file so that a reader, or a run that resumes, sees all of the old content or all of the new.

    Text is written as UTF-8. The content is on disk when this returns.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)  # the rename itself is on disk only once its folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Lines:
    """A file of JSON lines that only grows, and can be cut back to an earlier position.

    A last line without its end, left by a killed writer, is dropped on opening.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (kept open for the life of the run)
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line, in the file when this returns. Floats keep every digit; NaN and infinities become null."""
        self._file.write(json.dumps(_plain(row), ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def position(self) -> int:
        """Bytes written so far: what `truncate_after` takes."""
        return os.fstat(self._file.fileno()).st_size

    def truncate_after(self, position: int) -> None:
        """Drop every line after a position. Raises CheckpointError when the file is shorter than that."""
        if position > self.position():
            raise CheckpointError(
                f"{self.path} has {self.position()} bytes where the saved state counts {position}: it was cut\n"
                "restore the file, or delete the run directory and start again"
            )
        self._file.truncate(position)

    def rows(self) -> list[dict[str, Any]]:
        """Every line, read back."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def sync(self) -> None:
        """Wait until all lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy or torch scalar or array
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunDirectory:
    """One run's files, locked against every other process while it is open.

    recipe: the resolved recipe; written to `run.yaml` of a new directory, compared with the one already there.

    Raises EtudeError when another process has the directory open, RecipeError when it holds a run of another recipe,
    CheckpointError when its files contradict its saved state.
    """

    def __init__(self, path: str | Path, recipe: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.trajectories = self.path / "trajectories"
        self.checkpoints = self.path / "checkpoints"
        self.trajectories.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self._lock = _lock(self.path / "lock")
        try:
            for left in (*self.path.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")):
                # a checkpoint dies as a folder, anything else as a file
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            self._check_recipe(recipe)
            self.state = read_state(self.path)
            self.metrics = Lines(self.path / "metrics.jsonl")
            self.timings = Lines(self.path / "timings.jsonl")
            self.metrics.truncate_after(self.state.get("metrics_position", 0))
        except BaseException:
            os.close(self._lock)
            raise

    def _check_recipe(self, recipe: Mapping[str, Any]) -> None:
        file = self.path / "run.yaml"
        if not file.exists():
            atomic_write(file, recipes.dump(recipe))
            return
        before, now = _flat(recipes.read(file)), _flat(recipes.parse(recipes.dump(recipe)))
        differing = [key for key in {**before, **now} if before.get(key, _ABSENT) != now.get(key, _ABSENT)]
        if differing:
            lines = [f"{key}: {before.get(key, _ABSENT)!r} there, {now.get(key, _ABSENT)!r} now" for key in differing]
            shown = lines if len(lines) <= 8 else [*lines[:8], f"… and {len(lines) - 8} more"]
            first, last = f"{self.path} holds a run of another recipe", "choose another directory with --out"
            raise RecipeError("\n".join([first, *shown, last]))

    def save_state(self, **state: Any) -> None:
        """Record how far the run is; `stage` and `step` by convention, and `finished=True` at its end.

        Everything in `metrics` at this moment belongs to the state; what follows is cut off if the run dies before the
        next call. Save checkpoints and trajectories first.
        """
        self.metrics.sync()
        self.state = {**state, "metrics_position": self.metrics.position()}
        atomic_write(self.path / "state.json", json.dumps(_plain(self.state), indent=1) + "\n")

    def write(self, name: str, content: bytes | str) -> Path:
        """Replace one file of the directory atomically and return its path: `write("report.html", page)`."""
        atomic_write(self.path / name, content)
        return self.path / name

    def log(self, text: str) -> None:
        """Add a line to `log.txt`, with the time."""
        now = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")

    def close(self) -> None:
        """Let other processes open the directory."""
        self.metrics.close()
        self.timings.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_state(path: str | Path) -> dict[str, Any]:
    """The last saved state of a run directory, without opening it; empty for a run that has saved none yet."""
    file = Path(path) / "state.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def status(path: str | Path) -> str:
    """`running` while a process has the directory open, else `finished`, or `stopped` with the stage it resumes at."""
    path = Path(path)
    if (path / "lock").exists():
        descriptor = os.open(path / "lock", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "running"
        finally:
            os.close(descriptor)
    state = read_state(path)
    if state.get("finished"):
        return "finished"
    at = [f"{key} {state[key]}" for key in ("stage", "step") if key in state]
    return "stopped" + (f" at {', '.join(at)}" if at else "")


def _lock(file: Path) -> int:
    """An open descriptor that holds the lock; the system releases it however the process ends."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode() or "unknown"
        os.close(descriptor)
        raise EtudeError(
            f"{file.parent} is in use by process {holder}\nwait for it to end, or choose another directory with --out"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _flat(data: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of nested data by its path.

    >>> _flat({"stages": [{"train": {"epochs": 2}}]})
    {'stages[0].train.epochs': 2}
    """
    if isinstance(data, dict) and data:
        inner = [_flat(item, f"{place}.{key}" if place else str(key)) for key, item in data.items()]
    elif isinstance(data, list) and data:
        inner = [_flat(item, f"{place}[{i}]") for i, item in enumerate(data)]
    else:
        return {place: data}
    return {key: value for part in inner for key, value in part.items()}
