"""Shards: what goes in comes out exactly, whoever reads it, whatever fails."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from etude.core.errors import TrajectoryError
from etude.trajectory import Boundary, Episode, Failure, Image, Message, Node, StopReason, ToolCall, Trajectory
from etude.trajectory.store import BATCH, Store

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
REAL = st.floats() | st.just(math.nan)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | REAL | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
SCORES = st.dictionaries(TEXT, REAL, max_size=3)
MESSAGE = st.builds(
    Message,
    role=TEXT,
    content=TEXT,
    tool_calls=st.lists(st.builds(ToolCall, TEXT, OBJECT, TEXT), max_size=2).map(tuple),
    tool_call_id=TEXT,
    name=TEXT,
    thought=TEXT,
    images=st.lists(st.builds(Image, st.binary(max_size=5), TEXT), max_size=2).map(tuple),
)
VECTOR = arrays.arrays(
    st.sampled_from([np.float32, np.float64, np.int8, np.complex64, np.bool_, ">i4", np.float16]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)


@st.composite
def nodes(draw, n: int, messages: int) -> Node:
    def tokens(dtype):
        return draw(st.none() | arrays.arrays(dtype, size))

    size = draw(st.integers(0, 4))
    ids_T = tokens(np.int32)
    rest = {} if ids_T is None else {"sampled_T": tokens(np.bool_), "logprob_T": tokens(np.float32)}
    return Node(
        draw(st.none() | st.integers(0, n - 1)) if n else None,
        draw(st.integers(0, messages - 1)),
        ids_T,
        **rest,
        weight_T=None if ids_T is None else tokens(np.float32),
        version=draw(st.none() | st.integers(0, 2**40)),
        reward=draw(st.none() | REAL),
        scores=draw(SCORES),
        action=draw(st.none() | VECTOR),
    )


@st.composite
def trajectories(draw) -> Trajectory:
    messages = draw(st.lists(MESSAGE, min_size=1, max_size=3))
    count = draw(st.integers(0, 4))
    leaf = st.integers(0, count - 1)
    episode = st.builds(
        Episode,
        leaf=leaf,
        rewritten=st.lists(leaf, max_size=2),
        seed=st.integers(-(2**63), 2**63 - 1),
        reward=st.none() | REAL,
        score=st.none() | REAL,
        scores=SCORES,
        stop=st.none() | st.sampled_from(StopReason),
        failure=st.none() | st.builds(Failure, st.sampled_from(Boundary), TEXT),
        turns=st.integers(0, 99),
        tokens_sampled=st.integers(0, 2**40),
        seconds=REAL,
    )
    return Trajectory(
        *(draw(TEXT) for _ in range(4)),
        tools=draw(st.lists(OBJECT, max_size=2)),
        messages=messages,
        nodes=[draw(nodes(n, len(messages))) for n in range(count)],
        episodes=draw(st.lists(episode, max_size=3)) if count else [],
        meta=draw(OBJECT),
    )


def exact(value):
    """A form in which `==` tells NaN from None, 0.0 from -0.0, True from 1, and one array type from another."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if dataclasses.is_dataclass(value):
        return (type(value), [(f.name, exact(getattr(value, f.name))) for f in dataclasses.fields(value)])
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [type(value), *map(exact, value)]
    return (type(value), repr(value))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(trajectories(), max_size=4))
def test_round_trip_is_exact(batch):
    store = Store(f"memory://{uuid.uuid4()}")
    store.write(batch, "k")
    assert exact(list(store.read())) == exact(batch)


def sample(id: str = "a") -> Trajectory:
    t = Trajectory(id, "task", "desk", "train", tools=[{"name": "f", "parameters": {}}], meta={"skills": ["x"]})
    root = t.add(Message("user", "hi", images=(Image(b"\x00\xff"),)), None, ids_T=np.array([1, 2], np.int32))
    leaf = t.add(
        Message("assistant", "", (ToolCall("f", {}, "c"),)),
        root,
        ids_T=np.array([3, 4, 5], np.int32),
        sampled_T=np.array([False, True, True]),
        logprob_T=np.array([np.nan, -0.5, -0.25], np.float32),
        version=3,
        scores={"judge": 0.5},
        action=np.zeros((2, 0), np.float32),
    )
    failed = Failure(Boundary.TOOL, "boom")
    t.episodes = [Episode(leaf, score=1.0), Episode(leaf, stop=StopReason.FAILED, failure=failed)]
    t.weigh([1.5, math.nan])
    return t


def test_many_row_groups_keep_their_order_and_tokens(tmp_path):
    """Token columns are cut out of whole row groups: each must land in its own node."""
    store = Store(tmp_path)
    batch = [sample(f"{n:03}") for n in range(2 * BATCH + 3)]
    for n, t in enumerate(batch):
        t.nodes[0].ids_T = None if n % 3 == 0 else np.arange(n % 5, dtype=np.int32)
    store.write(batch)
    assert exact(list(store.read())) == exact(batch)
    assert len(store) == store.count() == 2 * BATCH + 3


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> Store:
    return Store(tmp_path / "deep" / "store" if request.param == "local" else f"memory://{uuid.uuid4()}/store")


def test_keys_order_and_replacement(store):
    assert (store.keys(), len(store), list(store.read())) == ([], 0, [])
    store.write([sample("b1"), sample("b2")], "practise-000002")
    store.write([sample("a")], "practise-000001")
    assert store.write([sample("c")], "practise-000002") == "practise-000002"
    assert store.keys() == ["practise-000001", "practise-000002"]
    assert [t.id for t in store] == ["a", "c"]
    assert store.count(["practise-000002"]) == 1
    assert [t.id for t in store.read(["practise-000002"])] == ["c"]
    with pytest.raises(TrajectoryError, match="no shard 'practise-00003'; did you mean 'practise-00000"):
        list(store.read(["practise-00003"]))
    first, second = store.write([sample()]), store.write(iter([sample()]))
    assert first != second
    assert len(store) == 4


def test_a_shard_that_cannot_be_written_leaves_no_trace(tmp_path):
    store = Store(tmp_path)
    store.write([sample("old")], "k")
    broken = sample("broken")
    broken.nodes[1].sampled_T = np.ones(1, bool)

    def failing():
        yield sample()
        raise RuntimeError("collector died")

    lone, huge, strange = sample("lone"), sample("huge"), sample("strange")
    lone.messages[0] = Message("user", "\ud800")
    huge.episodes[0].seed = 2**64
    strange.meta = {"when": object()}
    for bad, message in [
        ([sample(), broken], "trajectory broken node 1: sampled_T has 1 of 3 tokens"),
        ([sample(), lone], "trajectory 'lone' cannot be stored: .*surrogate"),
        ([sample(), huge], "trajectory 'huge' cannot be stored"),
        ([sample(), strange], "trajectory 'strange' cannot be stored: .*JSON"),
    ]:
        with pytest.raises(TrajectoryError, match=message):
            store.write(bad, "k")
    with pytest.raises(RuntimeError, match="collector died"):
        store.write(failing(), "k")
    assert [p.name for p in tmp_path.iterdir()] == ["k.parquet"]
    assert [t.id for t in store.read()] == ["old"]
    with pytest.raises(TrajectoryError, match=r"shard key '\.\./k'"):
        store.write([], "../k")


def test_a_writer_killed_at_any_moment_leaves_the_old_shard(tmp_path):
    """The process dies half way through its trajectories."""
    store = Store(tmp_path)
    store.write([sample("old")], "k")
    script = (
        "import os, sys\nfrom etude.trajectory import Trajectory\nfrom etude.trajectory.store import Store\n"
        "def dying():\n    for n in range(200):\n        yield Trajectory(str(n), 't')\n    os._exit(9)\n"
        "Store(sys.argv[1]).write(dying(), 'k')"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2  # the shard, and a hidden remainder that nobody reads
    assert (store.keys(), [t.id for t in store.read()]) == (["k"], ["old"])


def test_many_writers_at_once(store):
    threads = [threading.Thread(target=lambda n=n: [store.write([sample(f"{n}")]) for _ in range(5)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(t.id for t in store.read()) == sorted("0123" * 5)


def test_damaged_and_foreign_shards_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = Store(tmp_path)
    store.write([sample(str(n)) for n in range(50)], "cut")
    whole = (tmp_path / "cut.parquet").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 4] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], b"", bytes(flipped)):
        (tmp_path / "cut.parquet").write_bytes(damaged)
        with pytest.raises(
            TrajectoryError, match=r"cut\.parquet cannot be read: [\s\S]*delete it and collect its key again"
        ):
            list(store.read())
    os.remove(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TrajectoryError, match=r"other\.parquet is Parquet, but holds no etude trajectories"):
        len(store)
    table = pa.table({"x": [1]}).replace_schema_metadata({"etude.trajectory": "99"})
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(TrajectoryError, match="schema version b'99', not 1: install a newer etude"):
        len(store)


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    """Of the data: what lies behind it describes the columns, and may hold bytes that nobody needs."""
    store = Store(tmp_path)
    batch = [sample("a"), sample("b")]
    store.write(batch, "k")
    whole = (tmp_path / "k.parquet").read_bytes()
    end = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    noticed = 0
    for at in range(4, end, 53):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        (tmp_path / "k.parquet").write_bytes(damaged)
        try:
            assert exact(list(store.read())) == exact(batch)
        except TrajectoryError:
            noticed += 1
    assert noticed > 20


# -- readers that know nothing of etude --------------------------------------------------------------------------------


@pytest.fixture
def shard(tmp_path) -> Path:
    Store(tmp_path).write([sample("a"), sample("b"), Trajectory("empty", "task")], "k")
    return tmp_path / "k.parquet"


def test_pyarrow_reads_it(shard):
    import pyarrow.parquet as pq

    file = pq.ParquetFile(shard)
    assert file.schema_arrow.metadata[b"etude.trajectory"] == b"1"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    row = file.read().to_pylist()[0]
    assert row["messages"][1]["tool_calls"] == [{"id": "c", "name": "f", "arguments": "{}"}]
    assert row["messages"][0]["images"] == [{"media": "image/png", "data": b"\x00\xff"}]
    assert row["nodes"][1]["sampled"] == [False, True, True]
    assert row["nodes"][0]["logprobs"] is None
    assert row["nodes"][1]["action"] == {"dtype": "<f4", "shape": [2, 0], "data": b""}
    assert row["episodes"][1]["failure"] == {"boundary": "tool", "error": "boom"}
    assert (json.loads(row["tools"]), json.loads(row["meta"])) == ([{"name": "f", "parameters": {}}], {"skills": ["x"]})


def test_duckdb_reads_it(shard):
    import duckdb

    tokens = duckdb.sql(
        f"select id, unnest(nodes, recursive := true) from '{shard}' where split = 'train' order by id"
    ).fetchall()
    assert len(tokens) == 4
    query = f"""select id, len(nodes), nodes[2].sampled, nodes[1].version is null,
        nodes[2].weights[3], isnan(nodes[2].logprobs[1]), episodes[2].failure.boundary, meta->>'$.skills[0]'
        from '{shard}' order by id"""
    assert duckdb.sql(query).fetchall()[:2] == [
        (id, 2, [False, True, True], True, 1.5, True, "tool", "x") for id in "ab"
    ]


def test_datasets_reads_it(shard, tmp_path):
    import datasets

    data = datasets.load_dataset("parquet", data_files=str(shard), split="train", cache_dir=str(tmp_path / "cache"))
    assert data["id"][:] == ["a", "b", "empty"]
    node = data[0]["nodes"][1]
    assert node["ids"] == [3, 4, 5]
    assert math.isnan(node["logprobs"][0])
    assert data[2]["nodes"] == []
