"""Formats in and out: what is kept, what is refused, and where the two meet."""

import base64
import gzip
import json
from pathlib import Path

import pytest

from etude.core.errors import FormatError
from etude.trajectory import Episode, Image, Message, ToolCall, Trajectory
from etude.trajectory.formats import FORMATS, detect, export_file, import_file, import_files
from etude.trajectory.store import Store

from .samples import ODD, OPENAI_TOOLS, PIXEL, PLAIN, SEARCH, normal

EVERY = [(f, n, row) for f in FORMATS for n, row in enumerate(PLAIN[f] + ODD[f])]
IDS = [f"{f}-{n}" for f, n, _ in EVERY]


def save(path: Path, *rows) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def load(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def reason(tmp_path: Path, row, format: str = "openai") -> str:
    """Why a row is put into quarantine."""
    imported = import_file(save(tmp_path / "row.jsonl", row), format)
    assert not imported.trajectories
    return imported.quarantined[0].reason


# -- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.exact(7)
@pytest.mark.parametrize(("format", "n", "row"), EVERY, ids=IDS)
def test_import_then_export_is_a_fixed_point(tmp_path, format, n, row):
    """Also through the store, and with the format found by looking."""
    store = Store(tmp_path / "store")
    source = save(tmp_path / "in.jsonl", row)
    counts = import_files([source], store, tmp_path / "quarantine.jsonl")
    assert (counts.good, counts.quarantined) == (1, 0), (tmp_path / "quarantine.jsonl").read_text()
    exported = export_file(store.read(), tmp_path / "out.jsonl", format)
    assert (exported.written, exported.refused) == (1, [])
    assert [normal(out) for out in load(tmp_path / "out.jsonl")] == [normal(row)]


@pytest.mark.parametrize(("format", "row"), [(f, row) for f in FORMATS for row in PLAIN[f]])
def test_plain_rows_leave_nothing_over(tmp_path, format, row):
    """Fixed points are not bought by keeping the source beside the messages."""
    trajectory = import_file(save(tmp_path / "in.jsonl", row)).trajectories[0]
    assert "_format" not in trajectory.meta


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_dialogue_is_exported_as_it_is_now(tmp_path, format):
    """The leftovers of the source are not laid over words that have changed since."""
    trajectory = import_file(save(tmp_path / "in.jsonl", ODD[format][0])).trajectories[0]
    last = max(n for n, m in enumerate(trajectory.messages) if m.role == "assistant")
    trajectory.messages[last] = Message("assistant", "Another answer.")
    del trajectory.messages[last + 1 :], trajectory.nodes[last + 1 :]
    trajectory.episodes[0].leaf = last
    assert export_file([trajectory], tmp_path / "out.jsonl", format).refused == []
    again = import_file(tmp_path / "out.jsonl", format).trajectories[0]
    assert [m.content for m in again.messages] == [m.content for m in trajectory.messages]


# -- every format to every other -------------------------------------------------------------------------------------


def kept(trajectory: Trajectory) -> list[tuple]:
    """What every conversion must keep of the dialogue, written independently of the code under test."""
    ids = [call.id for m in trajectory.messages for call in m.tool_calls]
    return [
        (m.role, (m.thought + "\n" + m.content).strip("\n"), [(c.name, c.arguments) for c in m.tool_calls], m.images)
        + ((ids.index(m.tool_call_id),) if m.role == "tool" else ())
        for m in trajectory.messages
    ]


@pytest.mark.exact(7)
def test_every_format_converts_to_every_other(tmp_path):
    """D importers and A exporters serve D x A pairs; what a format cannot hold is refused with a reason."""
    matrix = {}
    refused = []
    for source in FORMATS:
        rows = PLAIN[source] + ODD[source]
        imported = import_file(save(tmp_path / f"{source}.jsonl", *rows), source).trajectories
        assert len(imported) == len(rows)
        for target in FORMATS:
            out = tmp_path / f"{source}-{target}.jsonl"
            exported = export_file(imported, out, target)
            assert exported.written + len(exported.refused) == len(rows)
            again = import_file(out, target)
            assert not again.quarantined
            expected = [t for t in imported if t.id not in {r.id for r in exported.refused}]
            for trajectory, original in zip(again.trajectories, expected, strict=True):
                assert kept(trajectory) == kept(original)
                assert trajectory.tools == original.tools
                assert trajectory.episodes[0].reward == original.episodes[0].reward
            matrix[source, target] = exported.written
            refused += [(source, target, r.reason) for r in exported.refused]
    assert min(matrix.values()) > 0, [pair for pair, n in matrix.items() if n == 0]
    reasons = ("parallel calls", "images", "role", "make the", "messages of", "no Python name")
    assert all(any(words in why for words in reasons) for _, _, why in refused), refused
    assert len(refused) < sum(matrix.values()) / 4


# -- what a row becomes ----------------------------------------------------------------------------------------------


def test_openai_row(tmp_path):
    t = import_file(save(tmp_path / "a.jsonl", PLAIN["openai"][0])).trajectories[0]
    call = ToolCall("search", {"query": "Zugspitze"}, "call_a")
    assert t.messages[2] == Message("assistant", "", (call,), thought="I should look.")
    assert t.messages[3] == Message("tool", "2962 m", tool_call_id="call_a", name="search")
    assert t.tools == [SEARCH]
    assert (t.id, t.task, t.episodes[0].reward, t.episodes[0].score, t.episodes[0].turns) == (
        "height",
        "height",
        1.0,
        None,
        2,
    )
    assert all(n.ids_T is None and n.version is None for n in t.nodes)
    assert [n.parent for n in t.nodes] == [None, 0, 1, 2, 3]


def test_unknown_fields_become_meta_and_success_a_reward(tmp_path):
    t = import_file(save(tmp_path / "a.jsonl", ODD["openai"][0])).trajectories[0]
    assert t.id == "17"
    assert t.meta["source"] == {"name": "toolbench", "license": None}
    assert t.episodes[0].reward == 1.0
    assert t.messages[1].content == "ab"


def test_ids_are_made_the_same_way_every_time(tmp_path):
    path = save(tmp_path / "log.jsonl", ODD["openai"][1], ODD["openai"][1])
    first, second = (import_file(path).trajectories for _ in range(2))
    assert [t.id for t in first] == [t.id for t in second] == ["log-1", "log-2"]
    assert first[0].messages[1].tool_calls[0].id == "call_0"
    assert (first[0].episodes[0].score, first[0].meta["score"]) == (None, "high")


def test_a_result_without_an_id_belongs_to_the_latest_call(tmp_path):
    def call(query):
        return {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": {"query": query}}}]}

    row = said(call("never answered"), {"role": "user", "content": "hm"}, call("x"), {"role": "tool", "content": "1"})
    t = import_file(save(tmp_path / "a.jsonl", row)).trajectories[0]
    assert t.messages[4].tool_call_id == t.messages[3].tool_calls[0].id == "call_1"


def test_images_come_out_as_bytes(tmp_path):
    t = import_file(save(tmp_path / "a.jsonl", PLAIN["openai"][1])).trajectories[0]
    assert t.messages[0].images == (Image(base64.b64decode(PIXEL.split(",")[1]), "image/png"),)


def test_adp_row(tmp_path):
    t = import_file(save(tmp_path / "a.jsonl", PLAIN["adp"][0])).trajectories[0]
    assert [m.role for m in t.messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert t.messages[3].tool_calls == (ToolCall("python", {"code": "print(2962 / 1000)"}, "call_000002"),)
    assert t.messages[1].thought == "I should look."
    assert [n.reward for n in t.nodes] == [None, None, 0.25, None, None, None]
    assert (t.episodes[0].reward, t.meta) == (1.0, {"dataset": "peaks"})


def test_adp_actions_in_a_row_are_one_message(tmp_path):
    t = import_file(save(tmp_path / "a.jsonl", ODD["adp"][0])).trajectories[0]
    assert [m.role for m in t.messages] == ["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert t.messages[4].content == "Clicking twice."
    assert [c.arguments for c in t.messages[4].tool_calls] == [{"id": 1}, {"id": 2}]
    # The first click answers, not the older ones that nothing answered.
    assert t.messages[5].tool_call_id == t.messages[4].tool_calls[0].id
    assert t.messages[3].content == "https://a.example\n[1] hi"


def test_react_row_and_chain_of_thought(tmp_path):
    acting, thinking = import_file(save(tmp_path / "a.jsonl", *PLAIN["react"])).trajectories
    assert acting.messages[1].tool_calls[0] == ToolCall("search", {"input": "Zugspitze"}, "call_0")
    assert (acting.messages[3].content, acting.episodes[0].reward) == ("2962 m", 1.0)
    assert not any(m.tool_calls for m in thinking.messages)
    assert (thinking.messages[1].content, thinking.episodes[0].reward) == ("4", 0.0)


def test_react_rows_as_they_were_released(tmp_path):
    """Choices at the head of the output belong to the question, and a reward may be a truth value."""
    output = "A. 1\nB. 2\nThought: x\nAction: finish[A]\nObservation: Episode finished, reward = False\n"
    row = {"instruction": "Which?", "input": "", "output": output}
    t = import_file(save(tmp_path / "a.jsonl", row)).trajectories[0]
    assert (t.messages[0].content, t.messages[1].content) == ("Which?\nA. 1\nB. 2", "A")
    assert t.episodes[0].reward == 0.0
    export_file([t], tmp_path / "out.jsonl", "react")
    assert load(tmp_path / "out.jsonl") == [row]


def test_react_reads_bare_text_as_the_first_parameter(tmp_path):
    row = PLAIN["react"][0] | {"tools": [SEARCH]}
    t = import_file(save(tmp_path / "a.jsonl", row)).trajectories[0]
    assert t.messages[1].tool_calls[0].arguments == {"query": "Zugspitze"}


def test_codeact_tells_a_tool_call_from_code(tmp_path):
    t = import_file(save(tmp_path / "a.jsonl", PLAIN["codeact"][0])).trajectories[0]
    assert t.messages[2] == Message(
        "assistant", tool_calls=(ToolCall("search", {"query": "Zugspitze"}, "call_0"),), thought="I should look."
    )
    assert t.messages[4].tool_calls[0] == ToolCall("python", {"code": "h = 2962\nprint(h / 1000)"}, "call_1")


# -- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".json.gz"])
@pytest.mark.parametrize("format", FORMATS)
def test_text_containers(tmp_path, format, suffix):
    rows = PLAIN[format] + ODD[format]
    trajectories = import_file(save(tmp_path / "in.jsonl", *rows)).trajectories
    export_file(trajectories, tmp_path / f"out{suffix}", format)
    again = import_file(tmp_path / f"out{suffix}")
    assert [t.messages for t in again.trajectories] == [t.messages for t in trajectories]
    assert not again.quarantined


def test_parquet_is_read_by_other_tools_and_by_us(tmp_path):
    import pyarrow.parquet as pq

    empty = {"messages": [{"role": "user", "content": "x"}], "id": "none"}
    trajectories = import_file(save(tmp_path / "in.jsonl", PLAIN["messages"][0], empty)).trajectories
    export_file(trajectories, tmp_path / "out.parquet", "messages")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert json.loads(rows[0]["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"query": "Zugspitze"}
    assert json.loads(rows[0]["tools"]) == OPENAI_TOOLS
    assert detect(tmp_path / "out.parquet") == "messages"
    again = import_file(tmp_path / "out.parquet")
    assert [t.messages for t in again.trajectories] == [t.messages for t in trajectories]
    export_file(again.trajectories, tmp_path / "again.parquet", "messages")
    assert pq.read_table(tmp_path / "again.parquet").to_pylist() == rows


def test_parquet_structs_lose_the_nulls_that_other_rows_put_there(tmp_path):
    """`datasets` stores arguments as one struct with the keys of all rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(**arguments):
        call = {"function": {"name": "f", "arguments": arguments}}
        return {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]}

    pq.write_table(pa.Table.from_pylist([row(a=1), row(b="x")]), tmp_path / "in.parquet")
    found = import_file(tmp_path / "in.parquet").trajectories
    assert [t.messages[1].tool_calls[0].arguments for t in found] == [{"a": 1}, {"b": "x"}]


def test_pretty_printed_json(tmp_path):
    rows = PLAIN["adp"] + ODD["adp"]
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "one.json").write_text(json.dumps(rows[0], indent=2))
    assert len(import_file(tmp_path / "array.json").trajectories) == 2
    assert len(import_file(tmp_path / "one.json").trajectories) == 1


# -- bad rows --------------------------------------------------------------------------------------------------------


def said(*messages, **more):
    return {"messages": [{"role": "user", "content": "go"}, *messages]} | more


CALLED = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "search", "arguments": "{}"}}]}
REASONS = [
    ('{"messages": [}', "not JSON at column 15: Expecting value"),
    ("[1, 2]", "a list, not an object"),
    ("{}", "missing key 'messages'"),
    ('{"messages": []}', "an empty dialogue"),
    ('{"messages": {}}', "'messages' is an object, not a list"),
    ({"messages": [{"content": "x"}]}, "message 0: missing key 'role'"),
    (said({"role": "robot", "content": "x"}), "message 1: wrong role 'robot'"),
    (said({"role": "assistant", "content": 5}), "message 1: 'content' is a number, not a list"),
    (said({"role": "tool", "content": "x", "tool_call_id": "c9"}), "message 1: tool result 'c9' without a call"),
    (said(CALLED, tools=[SEARCH | {"name": "searches"}]), "which is not offered; did you mean 'searches'?"),
    (
        said({"role": "assistant", "function_call": {"name": "f", "arguments": "[1]"}}),
        "arguments are a list, not an object",
    ),
    (
        said({"role": "assistant", "function_call": {"name": "f", "arguments": "{"}}),
        "arguments are not JSON at column 2",
    ),
    (
        said({"role": "user", "content": "x", "tool_calls": CALLED["tool_calls"]}),
        "tool calls in a message of role 'user'",
    ),
    ('{"messages": [{"role": "user", "content": "x"}], "reward": NaN}', "NaN is not a JSON number"),
    ('{"messages": [{"role": "user", "content": "x"}], "reward": -1e999}', "the number -1e999 is too large"),
    ('{"messages": [{"role": "user", "content": "x"}], "reward": 1' + "0" * 400 + "}", "'reward' is too large"),
    ('{"messages": ' + "1" * 5000 + "}", "a number that is too long"),
    ('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 100 levels deep"),
    ('{"messages": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 levels deep"),
    ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "half a surrogate pair"),
    (
        said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}),
        "the image is a link (https://a.example/b.png)",
    ),
    (said({"role": "user", "content": [{"type": "input_audio"}]}), "content of type 'input_audio'"),
]


@pytest.mark.exact(7)
@pytest.mark.parametrize(("row", "why"), REASONS, ids=[why[:40] for _, why in REASONS])
def test_a_bad_row_is_quarantined_with_its_reason(tmp_path, row, why):
    assert why in reason(tmp_path, row)


@pytest.mark.parametrize(
    ("format", "row", "why"),
    [
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "a"}] * 2},
            "turn 1: roles out of order, 'user' after 'user'",
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "gpt", "value": "a"}]},
            "turn 0: roles out of order, 'assistant' at the",
        ),
        ("sharegpt", {"conversations": [{"from": "bot", "value": "a"}]}, "turn 0: wrong role 'bot'"),
        ("react", {"instruction": "q", "output": "Action: go"}, "the action 'go' is not of the form name[argument]"),
        ("react", {"instruction": "q", "output": "Observation: x"}, "roles out of order: Observation after no action"),
        ("react", {"instruction": "q", "output": "Action: finish[a]\nThought: b"}, "Thought after finish"),
        ("react", {"instruction": "q", "output": "yes"}, "the output has no line Thought: or Action:, but 'yes'"),
        ("react", {"instruction": "q", "output": "Thought: b"}, "the last thought leads to no action"),
        ("adp", {"id": "a", "content": [{"class_": "dance_action"}]}, "content[0]: unknown class_ 'dance_action'"),
        (
            "adp",
            {"id": "a", "content": [{"class_": "api_action", "function": "f", "kwargs": []}]},
            "'kwargs' is a list",
        ),
        ("adp", {"id": 4, "content": []}, "'id' is a number, not a string"),
        ("actionstudio", {"query": "q", "steps": [{"tool_calls": []}]}, "steps[0]: missing key 'thought'"),
        ("codeact", {"conversations": [{"role": "tool", "content": "x"}]}, "turn 0: wrong role 'tool'"),
    ],
)
def test_reasons_of_other_formats(tmp_path, format, row, why):
    assert why in reason(tmp_path, row, format)


def test_one_bad_line_leaves_the_rest(tmp_path):
    """Bytes that are not text, a blank line, a byte-order mark and duplicate keys among good rows."""
    good = json.dumps(PLAIN["openai"][0]).encode()
    twice = b'{"messages": 1, "messages": [{"role": "user", "content": "x"}]}'
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([b"\xef\xbb\xbf" + good, b"", b'{"messages": "\xff\xfe"}', good + b"\r", twice]))
    imported = import_file(path)
    assert [t.id for t in imported.trajectories] == ["height", "height", "log-5"]
    (bad,) = imported.quarantined
    assert (bad.file, bad.line) == (str(path), 3)
    assert bad.reason.startswith("bad UTF-8 in line 3 at byte 14: 0xff")
    assert base64.b64decode(bad.excerpt.removeprefix("base64:")) == b'{"messages": "\xff\xfe"}'


def test_bad_parquet_rows_have_their_number(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = {"messages": [{"role": "user", "content": "x"}], "reward": 1.0}
    pq.write_table(pa.Table.from_pylist([good, good | {"reward": float("nan")}, good]), tmp_path / "in.parquet")
    imported = import_file(tmp_path / "in.parquet")
    assert [t.id for t in imported.trajectories] == ["in-1", "in-3"]
    (bad,) = imported.quarantined
    assert (bad.line, bad.reason) == (2, "a value that JSON cannot hold: NaN is not a JSON number")
    assert bad.excerpt.startswith("{'messages': [{")


def test_a_huge_line_is_skipped_whole(tmp_path):
    good = json.dumps(PLAIN["openai"][0])
    with (tmp_path / "log.jsonl").open("w") as file:
        file.write(f'{good}\n{{"messages": "{"x" * (33 * 2**20)}"}}\n{good}\n')
    imported = import_file(tmp_path / "log.jsonl")
    assert len(imported.trajectories) == 2
    assert imported.quarantined[0].line == 2
    assert "the limit is 33554432" in imported.quarantined[0].reason
    assert len(imported.quarantined[0].excerpt) == 500


def test_damaged_containers(tmp_path):
    good = json.dumps(PLAIN["openai"][0])
    whole = gzip.compress("".join(good[:-1] + f', "n": {n}}}\n' for n in range(500)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.json").write_text(f"[{good}, {good}, {good[:50]}")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    zipped, array, parquet = (import_file(tmp_path / f"cut.{s}") for s in ("jsonl.gz", "json", "parquet"))
    assert len(zipped.trajectories) > 0
    assert "the gzip file is damaged" in zipped.quarantined[-1].reason
    assert (len(array.trajectories), len(array.quarantined)) == (2, 1)
    assert (len(parquet.trajectories), parquet.quarantined[0].line) == (0, 0)


def test_import_files_loses_nothing_and_may_be_repeated(tmp_path):
    a = save(tmp_path / "a.jsonl", PLAIN["openai"][0], "{", PLAIN["openai"][1])
    b = save(tmp_path / "b.jsonl", *PLAIN["adp"], '{"what": 1}')
    odd = save(tmp_path / "c.jsonl", '{"what": 1}', '{"what": 2}')
    store = Store(tmp_path / "store")
    for _ in range(2):
        counts = import_files([a, b, odd], store, tmp_path / "bad.jsonl")
    bad = load(tmp_path / "bad.jsonl")
    assert (counts.good, counts.quarantined, len(store), len(bad)) == (3, 4, 3, 4)
    assert [(Path(row["file"]).name, row["line"]) for row in bad] == [
        ("a.jsonl", 2),
        ("b.jsonl", 2),
        ("c.jsonl", 1),
        ("c.jsonl", 2),
    ]
    assert "unknown format: its rows have the keys what" in bad[2]["reason"]
    assert (bad[0]["excerpt"], sum(counts.reasons.values())) == ("{", 4)


def test_a_missing_file_or_format_is_an_error(tmp_path):
    with pytest.raises(FormatError, match=r"no\.jsonl is not a file"):
        import_file(tmp_path / "no.jsonl")
    with pytest.raises(FormatError, match="did you mean 'openai'"):
        import_file(save(tmp_path / "a.jsonl", {}), "opnai")
    with pytest.raises(FormatError, match=r"end it in \.jsonl"):
        export_file([], tmp_path / "a.csv", "openai")


# -- exports that cannot be ------------------------------------------------------------------------------------------


def dialogue(*messages: Message, **more) -> Trajectory:
    trajectory = Trajectory("t", "task", **more)
    leaf = None
    for message in messages:
        leaf = trajectory.add(message, leaf)
    trajectory.episodes = [Episode(leaf)] if leaf is not None else []
    return trajectory


def test_images_of_parallel_results_stay_with_their_call(tmp_path):
    calls = (ToolCall("look", {"at": 1}, "a"), ToolCall("look", {"at": 2}, "b"))
    results = [Message("tool", c.id, images=(Image(c.id.encode()),) * 2, tool_call_id=c.id) for c in calls]
    t = dialogue(Message("user", "go", images=(Image(b"u"),)), Message("assistant", tool_calls=calls), *results)
    for format in ("adp", "openai", "messages"):
        assert export_file([t], tmp_path / "out.jsonl", format).written == 1
        assert kept(import_file(tmp_path / "out.jsonl", format).trajectories[0]) == kept(t)


USER, CALL = Message("user", "go"), ToolCall("search", {"query": "x"}, "c")


@pytest.mark.parametrize(
    ("format", "trajectory", "why"),
    [
        ("react", dialogue(Message("user", "look", images=(Image(b"x"),)), Message("assistant", "a")), "images"),
        ("react", dialogue(USER, Message("assistant", tool_calls=(CALL, CALL))), "parallel calls"),
        ("react", dialogue(USER, Message("assistant", "a"), USER), "a further message of role 'user'"),
        (
            "react",
            dialogue(
                USER,
                Message("assistant", tool_calls=(CALL,)),
                Message("tool", "a\nAction: finish[b]", tool_call_id="c"),
            ),
            "message",
        ),
        ("sharegpt", dialogue(USER, USER), "roles out of order"),
        ("sharegpt", dialogue(Message("user", "look", images=(Image(b"x"),))), "images"),
        ("sharegpt", dialogue(USER, Message("assistant", "<think>a</think>b")), "make the words"),
        ("codeact", dialogue(USER, Message("assistant", tool_calls=(ToolCall("a-b", {}, "c"),))), "no Python name"),
        ("openai", dialogue(), "no episode"),
        ("openai", dialogue(USER, Message("tool", "1")), "without a call"),
        ("openai", dialogue(USER, meta={"x": float("nan")}), "NaN is not a JSON number"),
        ("openai", dialogue(USER, meta={"x": {1}}), "not JSON serializable"),
        ("adp", dialogue(USER, Message("assistant"), Message("assistant", tool_calls=(CALL,))), "make the calls"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, format, trajectory, why):
    exported = export_file([trajectory, dialogue(USER, Message("assistant", "a"))], tmp_path / "out.jsonl", format)
    assert exported.written == 1
    (refused,) = exported.refused
    assert (refused.id, refused.episode) == ("t", 0)
    assert why in refused.reason


def test_every_episode_is_a_row(tmp_path):
    """Branches of one tree come out as dialogues of their own."""
    t = dialogue(USER, Message("assistant", "a"))
    t.episodes = [Episode(1, reward=1.0), Episode(t.add(Message("assistant", "b"), 0), reward=0.0)]
    assert export_file([t], tmp_path / "out.jsonl", "openai").written == 2
    rows = load(tmp_path / "out.jsonl")
    assert [(r["id"], r["task"], r["messages"][1]["content"], r["reward"]) for r in rows] == [
        ("t#0", "task", "a", 1.0),
        ("t#1", "task", "b", 0.0),
    ]
