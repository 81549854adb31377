"""What the formats share: a row of a log <-> a trajectory, and files of them.

A format is a module here with three functions:

    matches(row) -> bool           whether a row (a JSON object) looks like this format
    read(row) -> Trajectory        raises FormatError with the reason, for the quarantine
    write(trajectory) -> dict      a trajectory of one path as a row; raises FormatError for what the format cannot hold

`read` maps a row to messages; details that messages have no place for (a null, a spelling, a key of one message) would
be lost. So on import the trajectory is written again at once, and where that differs from the row, the difference is
kept in `meta["_format"]`. Export to the same format applies it again, unless that part of the row has changed since.
"""

import base64
import hashlib
import importlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.core.errors import FormatError, TrajectoryError, suggest
from etude.trajectory.formats.dialogue import RESIDUAL, link
from etude.trajectory.formats.rows import Row, loads, read_rows, write_rows
from etude.trajectory.graph import Episode, Message, Trajectory
from etude.trajectory.store import Store

FORMATS = tuple(sorted({p.stem for p in Path(__file__).parent.glob("*.py")} - {"__init__", "base", "dialogue", "rows"}))
EXCERPT = 500
"""Characters of a bad row that the quarantine shows."""


# -- import --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quarantine:
    """A row that could not be read."""

    file: str
    line: int
    """Line of a JSON Lines file, row number otherwise, from 1; 0 stands for the whole file."""
    reason: str
    excerpt: str
    """The beginning of the row as it stands, or `base64:` and its bytes where it is not text."""


@dataclass
class Imported:
    trajectories: list[Trajectory] = field(default_factory=list)
    quarantined: list[Quarantine] = field(default_factory=list)


@dataclass
class Counts:
    """What `import_files` did: rows = good + quarantined."""

    good: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    shards: list[str] = field(default_factory=list)


def iter_file(path: str | os.PathLike[str], format: str = "auto") -> Iterator[Trajectory | Quarantine]:
    """Every row of a file as a trajectory, or as a quarantine where it cannot be read; one at a time in memory.

    format: one of FORMATS, or `auto` to let `detect` look at the first rows.
    Raises FormatError when the file is not there, or the format is not one of these.
    """
    path = Path(path)
    reader = _module(format) if format != "auto" else None
    unknown = ""
    if reader is None:
        try:
            reader = _module(detect(path))
        except FormatError as error:
            unknown = str(error)
    for row in read_rows(path):
        try:
            if row.problem or reader is None:
                raise FormatError(row.problem or unknown)
            yield decode(reader, row.value, f"{path.name.split('.')[0]}-{row.line}")
        except (FormatError, RecursionError) as error:
            yield Quarantine(str(path), row.line, str(error), _excerpt(row))


def import_file(path: str | os.PathLike[str], format: str = "auto") -> Imported:
    """All of `iter_file` at once."""
    imported = Imported()
    for item in iter_file(path, format):
        (imported.trajectories if isinstance(item, Trajectory) else imported.quarantined).append(item)  # type: ignore[arg-type]
    return imported


def import_files(
    paths: Iterable[str | os.PathLike[str]], store: Store, quarantine_file: str | os.PathLike[str], format: str = "auto"
) -> Counts:
    """Put good rows into the store, one shard a file, and bad ones into a JSON Lines file; say how many.

    Importing a file again replaces its shard.
    """
    counts = Counts()

    def good(path: Path, out: Any) -> Iterator[Trajectory]:
        for item in iter_file(path, format):
            if isinstance(item, Trajectory):
                counts.good += 1
                yield item
            else:
                counts.quarantined += 1
                counts.reasons[item.reason] += 1
                out.write(json.dumps(vars(item)) + "\n")

    Path(quarantine_file).parent.mkdir(parents=True, exist_ok=True)
    with open(quarantine_file, "w", encoding="utf-8") as out:
        for path in dict.fromkeys(map(Path, paths)):
            place = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=4).hexdigest()
            stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in path.name.split(".")[0])
            counts.shards.append(store.write(good(path, out), f"import-{stem}-{place}"))
    return counts


def detect(path: str | os.PathLike[str]) -> str:
    """The format that most of the first 20 readable rows look like. Raises FormatError when none does."""
    found: Counter[str] = Counter()
    seen: list[str] = []
    for row in read_rows(path):
        if not row.problem:
            seen.append(", ".join(list(row.value)[:8]))
            found.update(name for name in FORMATS if _module(name).matches(row.value))
        if len(seen) == 20:
            break
    if not found:
        keys = f"its rows have the keys {seen[0]}" if seen else "no row can be read"
        raise FormatError(f"unknown format: {keys}; name one of {', '.join(FORMATS)}")
    best = found.most_common(1)[0][0]
    return "messages" if best == "openai" and Path(path).suffix == ".parquet" else best


def _module(format: str) -> ModuleType:
    if format not in FORMATS:
        raise FormatError(f"no format {format!r}; {suggest(format, FORMATS)}")
    return importlib.import_module(f"etude.trajectory.formats.{format}")


def decode(module: ModuleType, row: dict[str, Any], name: str) -> Trajectory:
    """One row as a trajectory that `encode` turns back into the same row. `name` serves where the row has no id."""
    trajectory = module.read(row)
    trajectory.id = trajectory.id or name
    trajectory.task = trajectory.task or trajectory.id
    plain = module.write(trajectory)
    parts = {}
    for key in plain.keys() | row.keys():
        patch = _difference(plain.get(key, ABSENT), row.get(key, ABSENT))
        if patch is not None:
            parts[key] = {"of": _digest(plain.get(key, ABSENT)), "patch": patch}
    if parts:
        trajectory.meta[RESIDUAL] = {"name": module.__name__.rpartition(".")[2], "parts": dict(sorted(parts.items()))}
    return trajectory


def _excerpt(row: Row) -> str:
    raw = row.raw or ("" if row.value is None else json.dumps(row.value)).encode()
    try:
        return raw.decode()[:EXCERPT]
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw[: (EXCERPT - 7) // 4 * 3]).decode()


# -- export --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """An episode that a format cannot hold."""

    id: str
    episode: int
    reason: str


@dataclass
class Exported:
    written: int = 0
    refused: list[Refused] = field(default_factory=list)


def export_file(trajectories: Iterable[Trajectory], path: str | os.PathLike[str], format: str) -> Exported:
    """Write every episode as a row; the suffix of `path` says how (see `write_rows`).

    Each row is read back, and refused unless roles, words, calls, results, images and tools are all still there. Words
    may move between thought and content, where a format has one place for both.
    """
    module = _module(format)
    exported = Exported()

    def rows() -> Iterator[dict[str, Any]]:
        for trajectory in trajectories:
            for n, episode in enumerate(trajectory.episodes):
                id = trajectory.id if len(trajectory.episodes) == 1 else f"{trajectory.id}#{n}"
                try:
                    yield encode(module, _one_path(trajectory, episode, id))
                except (FormatError, TrajectoryError) as error:
                    exported.refused.append(Refused(trajectory.id, n, str(error)))
            if not trajectory.episodes:
                exported.refused.append(Refused(trajectory.id, 0, "it has no episode"))

    exported.written = write_rows(rows(), path)
    return exported


def encode(module: ModuleType, trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory of one path as a row of a format. Raises FormatError for what would be lost."""
    try:
        text = json.dumps(module.write(trajectory))
    except TypeError as error:
        raise FormatError(f"meta or tools hold what JSON cannot: {error}") from None
    residual = trajectory.meta.get(RESIDUAL, {})
    if residual.get("name") == module.__name__.rpartition(".")[2]:
        row = loads(text)
        for key, part in residual["parts"].items():
            if _digest(row.get(key, ABSENT)) == part["of"]:
                _apply(row, key, part["patch"])
        # Where some parts have changed since, the others may no longer fit them: then the plain row.
        with suppress(FormatError):
            return _kept(module, row, trajectory)
    return _kept(module, loads(text), trajectory)


def _kept(module: ModuleType, row: dict[str, Any], trajectory: Trajectory) -> dict[str, Any]:
    """The row, if reading it gives the same dialogue and tools."""
    again = module.read(row)
    _check_kept(_essence(trajectory.messages), _essence(again.messages))
    if again.tools != trajectory.tools:
        raise FormatError("the tools cannot be written in this format")
    return row


def _one_path(trajectory: Trajectory, episode: Episode, id: str) -> Trajectory:
    path, dialogue = trajectory.path(episode.leaf), link(trajectory.dialogue(episode.leaf), trajectory.tools)
    episode = replace(episode, leaf=len(path) - 1, rewritten=[])
    alone = replace(trajectory, id=id, messages=[], nodes=[], episodes=[episode])
    for n, message in enumerate(dialogue):
        alone.add(message, n - 1 if n else None, reward=trajectory.nodes[path[n]].reward)
    return alone


def _essence(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """What a conversion must keep of each message."""
    calls = [call.id for m in messages for call in m.tool_calls]
    return [
        {
            "role": m.role,
            "words": "\n".join(filter(None, (m.thought, m.content))),
            "calls": [(c.name, c.arguments) for c in m.tool_calls],
            "answered call": calls.index(m.tool_call_id) if m.tool_call_id in calls else None,
            "images": m.images,
        }
        for m in messages
    ]


def _check_kept(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    for n, (old, new) in enumerate(zip(before, after, strict=False)):
        for what, value in old.items():
            if value != new[what]:
                raise FormatError(f"message {n}: this format would make the {what} {new[what]!r:.80} of {value!r:.80}")
    if len(before) != len(after):
        raise FormatError(f"this format would make {len(after)} messages of {len(before)}")


# -- the difference between a row and what `write` makes of it -------------------------------------------------------

ABSENT = object()


def _difference(plain: Any, row: Any) -> dict[str, Any] | None:
    """What turns `plain` into `row`, None if they are equal.

    It is `{"value": …}`, `{"absent": true}`, `{"keep": characters, "then": …}` for a text, or by key `{"in": {…}}`.
    """
    if isinstance(plain, dict) and isinstance(row, dict):
        pairs = [(key, plain.get(key, ABSENT), row.get(key, ABSENT)) for key in [*plain, *(row.keys() - plain.keys())]]
    elif isinstance(plain, list) and isinstance(row, list) and len(plain) == len(row):
        pairs = [(str(n), a, b) for n, (a, b) in enumerate(zip(plain, row, strict=True))]
    elif row is ABSENT:
        return None if plain is ABSENT else {"absent": True}
    elif plain == row and isinstance(plain, bool) == isinstance(row, bool):  # True == 1 in Python, but not in JSON
        return None
    elif isinstance(plain, str) and isinstance(row, str):
        same = next((n for n, (a, b) in enumerate(zip(plain, row, strict=False)) if a != b), min(len(plain), len(row)))
        return {"keep": same, "then": row[same:]}
    else:
        return {"value": row}
    inside = {key: patch for key, a, b in pairs if (patch := _difference(a, b)) is not None}
    return {"in": inside} if inside else None


def _apply(container: Any, key: str, patch: dict[str, Any]) -> None:
    at: Any = int(key) if isinstance(container, list) else key
    if "in" in patch:
        for inner, part in patch["in"].items():
            _apply(container[at], inner, part)
    elif "absent" in patch:
        del container[at]
    elif "keep" in patch:
        container[at] = container[at][: patch["keep"]] + patch["then"]
    else:
        container[at] = patch["value"]


def _digest(value: Any) -> str:
    if value is ABSENT:
        return ""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
