"""Trajectories on disk: immutable Parquet shards in one directory, local or at any fsspec address.

A shard appears whole or not at all. One row is one trajectory, readable by DuckDB, pyarrow and `datasets` without
etude; what has no fixed shape (tools, meta, arguments of calls) is a JSON string, in which NaN is written `NaN`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.core.errors import TrajectoryError, suggest
from etude.trajectory.graph import (
    Boundary,
    Episode,
    Failure,
    Image,
    Message,
    Node,
    StopReason,
    ToolCall,
    Trajectory,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

VERSION = 1
"""Of the schema; written into every shard's metadata under `etude.trajectory`."""
BATCH = 64
"""Trajectories per Parquet row group, and held in memory at a time."""
TOKENS = {
    "ids": ("ids_T", np.int32),
    "sampled": ("sampled_T", np.bool_),
    "logprobs": ("logprob_T", np.float32),
    "weights": ("weight_T", np.float32),
}
"""Per-token columns: name in Parquet -> field of Node, type."""


@functools.cache
def schema() -> pa.Schema:
    """The Arrow schema of a shard."""
    import pyarrow as pa

    def struct(**fields: pa.DataType) -> pa.DataType:
        return pa.struct(list(fields.items()))

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    scores = pa.list_(struct(name=text, value=real))
    call = struct(id=text, name=text, arguments=text)
    image = struct(media=text, data=pa.binary())
    message = struct(
        role=text,
        content=text,
        thought=text,
        tool_calls=pa.list_(call),
        tool_call_id=text,
        name=text,
        images=pa.list_(image),
    )
    node = struct(
        parent=whole,
        message=whole,
        ids=pa.list_(pa.int32()),
        sampled=pa.list_(pa.bool_()),
        logprobs=pa.list_(pa.float32()),
        weights=pa.list_(pa.float32()),
        version=whole,
        reward=real,
        scores=scores,
        action=struct(dtype=text, shape=pa.list_(whole), data=pa.binary()),
    )
    episode = struct(
        leaf=whole,
        rewritten=pa.list_(whole),
        seed=whole,
        reward=real,
        score=real,
        scores=scores,
        stop=text,
        failure=struct(boundary=text, error=text),
        turns=whole,
        tokens_sampled=whole,
        seconds=real,
    )
    columns = dict.fromkeys(("id", "task", "environment", "split", "tools", "meta"), text)
    lists = {"messages": pa.list_(message), "nodes": pa.list_(node), "episodes": pa.list_(episode)}
    return pa.schema(list((columns | lists).items()), metadata={"etude.trajectory": str(VERSION)})


class Store:
    """The trajectories of a run or a data set; many writers may add shards at once.

    address: a directory, or an fsspec address such as `s3://bucket/run` or `memory://run`.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.address = str(address)
        self._fs, self._root = url_to_fs(self.address)
        self._local = isinstance(self._fs, LocalFileSystem)

    def write(self, trajectories: Iterable[Trajectory], key: str | None = None) -> str:
        """Write one shard and return its key; a shard of the same key is replaced whole.

        Raises TrajectoryError for a malformed trajectory, or one that Parquet cannot hold; no shard appears then.
        """
        key = key or f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", key):
            raise TrajectoryError(f"shard key {key!r}: use letters, digits, '.', '_', '-', the first a letter or digit")
        self._fs.makedirs(self._root, exist_ok=True)
        # A rename is atomic within one file system only, so a local temporary file lies beside its target.
        directory = self._root if self._local else tempfile.gettempdir()
        temporary = Path(directory, f".{key}-{os.getpid()}-{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                _write_parquet(trajectories, file)
                file.flush()
                os.fsync(file.fileno())
            if self._local:
                os.replace(temporary, self._path(key))
                _sync_directory(self._root)
            else:
                self._fs.put_file(str(temporary), self._path(key))
        finally:
            temporary.unlink(missing_ok=True)
        return key

    def read(self, keys: Iterable[str] | None = None) -> Iterator[Trajectory]:
        """Every trajectory of the given shards (all by default), in the order of shard names.

        Raises TrajectoryError for a shard that is missing, cut short, or written by a newer etude.
        """
        for key in self._chosen(keys):
            with self._open(key) as shard:
                for batch in shard.iter_batches(batch_size=BATCH):
                    yield from _trajectories(batch)

    def keys(self) -> list[str]:
        """Keys of the shards, sorted."""
        if not self._fs.exists(self._root):
            return []
        self._fs.invalidate_cache(self._root)
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(self._root, detail=False))
        return sorted(n.removesuffix(".parquet") for n in names if n.endswith(".parquet") and not n.startswith("."))

    def count(self, keys: Iterable[str] | None = None) -> int:
        """How many trajectories the given shards hold (all by default), from their metadata alone."""
        total = 0
        for key in self._chosen(keys):
            with self._open(key) as shard:
                total += shard.metadata.num_rows
        return total

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[Trajectory]:
        return self.read()

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}.parquet"

    def _chosen(self, keys: Iterable[str] | None) -> list[str]:
        there = self.keys()
        if keys is None:
            return there
        chosen = sorted(set(keys))
        for key in chosen:
            if key not in there:
                raise TrajectoryError(f"{self.address} has no shard {key!r}; {suggest(key, there[:20])}")
        return chosen

    @contextmanager
    def _open(self, key: str) -> Iterator[pq.ParquetFile]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(key)
        try:
            with self._fs.open(path, "rb") as file:
                shard = pq.ParquetFile(file, page_checksum_verification=True)
                _check_version(path, (shard.schema_arrow.metadata or {}).get(b"etude.trajectory"))
                yield shard
        except (pa.ArrowException, OSError) as error:
            raise TrajectoryError(
                f"shard {path} cannot be read: {error}\nit was cut short or altered after it was written: "
                "restore it from a copy, or delete it and collect its key again"
            ) from error


def _check_version(path: str, version: bytes | None) -> None:
    if version is None:
        raise TrajectoryError(f"{path} is Parquet, but holds no etude trajectories: move it out of this directory")
    if version != str(VERSION).encode():
        raise TrajectoryError(f"{path} has schema version {version!r}, not {VERSION}: install a newer etude")


def _sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- trajectory -> row ---------------------------------------------------------------------------------------------


def _write_parquet(trajectories: Iterable[Trajectory], file: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rest = iter(trajectories)
    with pq.ParquetWriter(file, schema(), compression="zstd", write_page_checksum=True) as writer:
        while batch := list(islice(rest, BATCH)):
            try:
                table = pa.Table.from_pylist([_row(t) for t in batch], schema=schema())
            except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
                raise _culprit(batch, error) from error
            writer.write_table(table)


def _culprit(batch: Sequence[Trajectory], error: Exception) -> TrajectoryError:
    """Which trajectory of a refused batch it was."""
    import pyarrow as pa

    for trajectory in batch:
        try:
            pa.Table.from_pylist([_row(trajectory)], schema=schema())
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as own:
            return TrajectoryError(f"trajectory {trajectory.id!r} cannot be stored: {own}")
    return TrajectoryError(f"{len(batch)} trajectories from {batch[0].id!r} on cannot be stored together: {error}")


def _row(trajectory: Trajectory) -> dict[str, Any]:
    trajectory.check()
    return {
        "id": trajectory.id,
        "task": trajectory.task,
        "environment": trajectory.environment,
        "split": trajectory.split,
        "tools": json.dumps(trajectory.tools),
        "meta": json.dumps(trajectory.meta),
        "messages": [_message_row(m) for m in trajectory.messages],
        "nodes": [_node_row(n) for n in trajectory.nodes],
        "episodes": [_episode_row(e) for e in trajectory.episodes],
    }


def _message_row(message: Message) -> dict[str, Any]:
    calls = [{"id": c.id, "name": c.name, "arguments": json.dumps(c.arguments)} for c in message.tool_calls]
    images = [{"media": i.media, "data": i.data} for i in message.images]
    return vars(message) | {"tool_calls": calls, "images": images}


def _node_row(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(node, name) for name in ("parent", "message", "version", "reward")}
    for column, (field, kind) in TOKENS.items():
        array_T = getattr(node, field)
        row[column] = None if array_T is None else np.asarray(array_T, kind)
    row["scores"] = _score_rows(node.scores)
    if node.action is not None:
        action = np.asarray(node.action)
        if action.dtype.hasobject:
            raise TypeError(f"an action of Python objects ({action!r:.80}); use numbers")
        row["action"] = {"dtype": action.dtype.str, "shape": list(action.shape), "data": action.tobytes()}
    return row


def _episode_row(episode: Episode) -> dict[str, Any]:
    return asdict(episode) | {"scores": _score_rows(episode.scores)}


def _score_rows(scores: dict[str, float]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in scores.items()]


# -- row -> trajectory ---------------------------------------------------------------------------------------------


def _trajectories(batch: pa.RecordBatch) -> Iterator[Trajectory]:
    # Token columns go from Arrow to numpy without a Python object per token; the rest is small.
    nodes = batch.column("nodes").flatten()
    tokens = {field: iter(_arrays(nodes.field(column), kind)) for column, (field, kind) in TOKENS.items()}
    slim = batch.set_column(batch.schema.get_field_index("nodes"), "nodes", _without_tokens(batch.column("nodes")))
    for row in slim.to_pylist():
        yield Trajectory(
            **{name: row[name] for name in ("id", "task", "environment", "split")},
            tools=json.loads(row["tools"]),
            meta=json.loads(row["meta"]),
            messages=[_message(m) for m in row["messages"]],
            nodes=[_node(n, {field: next(tokens[field]) for field in tokens}) for n in row["nodes"]],
            episodes=[_episode(e) for e in row["episodes"]],
        )


def _without_tokens(nodes: pa.ListArray) -> pa.ListArray:
    import pyarrow as pa

    struct = nodes.flatten()
    kept = [f for f in struct.type if f.name not in TOKENS]
    slim = pa.StructArray.from_arrays([struct.field(f.name) for f in kept], fields=kept)
    ends = np.concatenate([[0], np.cumsum(nodes.value_lengths().to_numpy())]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, slim)


def _arrays(lists: pa.ListArray, kind: type) -> list[np.ndarray | None]:
    values = lists.values.to_numpy(zero_copy_only=False)
    starts = lists.offsets.to_numpy()
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    return [
        np.array(values[start:end], kind) if there else None
        for start, end, there in zip(starts[:-1], starts[1:], valid, strict=True)
    ]


def _message(row: dict[str, Any]) -> Message:
    calls = tuple(ToolCall(c["name"], json.loads(c["arguments"]), c["id"]) for c in row["tool_calls"])
    images = tuple(Image(i["data"], i["media"]) for i in row["images"])
    return Message(**row | {"tool_calls": calls, "images": images})


def _node(row: dict[str, Any], tokens: dict[str, Any]) -> Node:
    action = row.pop("action")
    if action is not None:
        action = np.frombuffer(action["data"], np.dtype(action["dtype"])).reshape(action["shape"]).copy()
    return Node(**row | tokens | {"action": action, "scores": _scores(row["scores"])})


def _episode(row: dict[str, Any]) -> Episode:
    failure, stop = row["failure"], row["stop"]
    return Episode(
        **row
        | {
            "scores": _scores(row["scores"]),
            "stop": None if stop is None else StopReason(stop),
            "failure": None if failure is None else Failure(Boundary(failure["boundary"]), failure["error"]),
        }
    )


def _scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["name"]: row["value"] for row in rows}
