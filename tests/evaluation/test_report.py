import json
import re

import pytest

from etude.core.errors import EtudeError, FormatError
from etude.evaluation.gain import measured
from etude.evaluation.html import write_report
from etude.evaluation.losses import Losses
from etude.evaluation.report import Report, Row, amount, build_report, cost_total, load_report, pick_examples, verdict
from etude.trajectory import Boundary, Episode, Failure, Trajectory
from tests.evaluation.samples import counted, lost, report, task, tasks


def row(low, high, *, kind="loss", tolerance: float | None = 0.05, higher=True, difference=None):
    middle = (low + high) / 2 if difference is None else difference
    return Row("x", kind, 0.5, 0.5 + middle, middle, low, high, 10, "items", "share", higher, tolerance)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (row(0.1, 0.3, kind="gain", tolerance=0.0), "better"),
        (row(-0.1, 0.3, kind="gain", tolerance=0.0), "kept"),
        (row(-0.3, 0.1, kind="gain", tolerance=0.0), "unsure"),
        (row(-0.3, -0.1, kind="gain", tolerance=0.0), "lost"),
        (row(0.1, 0.3), "kept"),  # a loss row that improved is not a gain
        (row(-0.04, -0.02), "kept"),  # certain, but within the tolerance
        (row(-0.2, -0.1), "lost"),
        (row(-0.2, 0.02), "unsure"),
        (row(0.1, 0.2, higher=False), "lost"),  # lower is better: up is worse
        (row(-0.2, -0.1, higher=False), "kept"),
        (row(-0.2, -0.1, tolerance=None), "down"),
        (row(0.1, 0.2, tolerance=None, kind="effort"), "up"),
        (row(-0.1, 0.2, tolerance=None), "same"),
    ],
)
def test_labels(given, label):
    assert given.label == label


def test_a_row_without_an_interval_is_never_certain():
    assert Row("x", "gain", 0, 1, 1, None, None, 1, "tasks", "share", True, 0.0).label == "kept"
    assert Row("x", "loss", 1, 0, -1, None, None, 1, "tasks", "share", True, 0.1).label == "unsure"


GAIN = row(0.1, 0.3, kind="gain", tolerance=0.0)
LEVEL = row(-0.1, 0.1, kind="gain", tolerance=0.0)
FALL = row(-0.3, -0.1, kind="gain", tolerance=0.0)
LOSS = row(-0.2, -0.1)
FINE = row(-0.01, 0.01)


@pytest.mark.parametrize(
    ("rows", "word", "code"),
    [
        ([GAIN, FINE], "better", 0),
        ([GAIN, FINE, LOSS], "narrower", 3),
        ([GAIN, FALL], "narrower", 3),  # another domain, or pass@k, fell
        ([LEVEL, GAIN, FINE], "no different", 4),  # the primary success decides
        ([LEVEL, LOSS], "worse", 5),
        ([FALL, FINE], "worse", 5),
        ([FALL, GAIN], "worse", 5),
    ],
)
def test_verdict_and_exit_code(rows, word, code):
    assert verdict(rows) == word
    assert Report("r", rows, {}).exit_code == code


def test_success_is_paired_by_task():
    got = report(8, 24).rows[0]
    assert (got.name, got.before, got.after, got.items, got.label) == ("success", 0.2, 0.6, 40, "better")
    assert got.difference == pytest.approx(0.4)
    assert 0.2 < got.low < 0.4 < got.high < 0.6
    assert report(8, 8).verdict == "no different"
    assert report(24, 8).verdict == "worse"


def test_more_success_with_a_lost_ability_is_narrower():
    before, after = lost(general=[1.0] * 30 + [0.0] * 10), lost(general=[1.0] * 20 + [0.0] * 20)
    got = report(5, 30, losses_before=before, losses_after=after)
    assert (got.verdict, got.exit_code) == ("narrower", 3)
    assert got.reason.startswith("Success rose by 62 points [")
    assert got.reason.endswith("on 40 held-out tasks; lost: general.")
    # the same loss is within a tolerance of 30 points
    kept = report(5, 30, losses_before=before, losses_after=after, tolerances={"general": 0.3})
    assert kept.verdict == "better"
    assert report(5, 30, losses_before=before, losses_after=before).verdict == "better"


def test_tolerance_of_perplexity_is_a_share_of_the_value_before():
    values = {"perplexity": [20.0, 22.0, 18.0]}
    got = report(0, 40, losses_before=lost(**values), losses_after=lost(perplexity=[20.9, 22.9, 18.9]))
    assert got.rows[-1].tolerance == pytest.approx(1.0)
    assert got.rows[-1].label == "kept"
    worse = report(0, 40, losses_before=lost(**values), losses_after=lost(perplexity=[21.1, 23.1, 19.1]))
    assert worse.rows[-1].label == "lost"


def test_pass_at_k_can_fall_while_success_rises():
    # before: every task is solved once in four; after: half of the tasks always, the others never
    before = measured({"s": [task(f"t{n}", True, False, False, False) for n in range(40)]})
    after = measured({"s": [task(f"t{n}", *[n % 2 == 0] * 4) for n in range(40)]})
    got = build_report(before, after)
    by_name = {r.name: r for r in got.rows}
    assert by_name["success"].label == "better"
    assert (by_name["pass@4"].before, by_name["pass@4"].after) == (1.0, 0.5)
    assert by_name["pass@4"].label == "lost"
    assert got.verdict == "narrower"


def test_text_of_a_report():
    general = {"general": [1.0, 0.0] * 20, "diversity": [0.71, 0.73, 0.69]}
    after = {"general": [1.0, 0.0] * 20, "diversity": [0.55, 0.58, 0.52]}
    got = build_report(
        counted(5, **{"new shops": tasks(2, 20, "new")}),
        counted(33, **{"new shops": tasks(9, 20, "new")}),
        lost(**general),
        lost(**after),
        cost={
            "train": {"seconds": 400.0, "tokens_trained": 184_000, "peak_memory_bytes": 2.6e9},
            "practise": {"seconds": 180.0, "tokens_sampled": 61_000, "peak_memory_bytes": 1e9},
        },
        path="runs/quickstart-3f2a/report.html",
        nouns={"new shops": "tasks, tools never seen"},
    )
    text = str(got)
    patterns = [
        r"better   success    +12% -> 82% +\+70 \[\+\d\d, \+\d\d\] +40 held-out tasks",
        r"         new shops  +10% -> 45% +\+35 \[\+\d\d, \+\d\d\] +20 tasks, tools never seen",
        r"same     turns      +2\.00 -> 2\.00 +.*",
        r"         tokens     +20\.0 -> 20\.0 +.*",
        r"kept     general    +50% -> 50% +\+0 \[ \+0,  \+0\] +40 questions",
        r"lost     diversity  +0\.71 -> 0\.55 +-0\.16 \[-0\.17, -0\.15\] +3 prompts",
        r"cost     9 min 40 s, 184 k tokens trained, 61 k sampled, 2\.6 GB",
        r"report   runs/quickstart-3f2a/report\.html",
    ]
    lines = text.splitlines()
    assert len(lines) == len(patterns), text
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_cost_adds_up_except_for_memory():
    cost = {"a": {"seconds": 1.5, "peak_memory_bytes": 7.0}, "b": {"seconds": 2.0, "peak_memory_bytes": 5.0}}
    assert cost_total(cost) == {"seconds": 3.5, "peak_memory_bytes": 7.0}
    assert [amount(x) for x in (0, 999, 1_000, 9_960, 999_900)] == ["0", "999", "1.0 k", "10 k", "1.0 M"]


def test_json_round_trip(tmp_path):
    before, after = lost(general=[1.0, 0.0, 1.0]), lost(general=[1.0, 1.0, 1.0])
    got = report(
        5, 30, losses_before=before, losses_after=after, cost={"train": {"seconds": 3.0}},
        curves=[{"stage": "train", "step": 1, "loss": float("nan")}, {"stage": "train", "step": 2, "loss": 1.5}],
        examples=pick_examples(tasks(1, 3), tasks(2, 3)), name="demo", notes=["read me"],
    )  # fmt: skip
    write_report(got, tmp_path)
    value = json.loads((tmp_path / "report.json").read_text())
    assert (value["verdict"], value["exit_code"]) == ("better", 0)
    assert value["curves"][0]["loss"] is None
    assert [r["label"] for r in value["rows"]] == [r.label for r in got.rows]
    again = load_report(tmp_path)
    assert again.rows == got.rows
    assert again.figures == got.figures
    assert str(again) == str(got)
    assert again.to_json() | {"curves": 0} == got.to_json() | {"curves": 0}


def test_one_task_gives_null_bounds(tmp_path):
    got = report(0, 1, of=1)
    assert (got.rows[0].low, got.rows[0].high) == (None, None)
    assert "[?, ?]" in got.reason or "[  ?,   ?]" in str(got)
    write_report(got, tmp_path)
    assert load_report(tmp_path).rows[0].low is None


def test_reading_what_is_not_a_report(tmp_path):
    with pytest.raises(FormatError, match=r"holds no report\.json"):
        load_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(FormatError, match="is not a report of etude"):
        load_report(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": 99}')
    with pytest.raises(FormatError, match="report schema 99: this version reads schema 1"):
        load_report(tmp_path)


def test_errors_name_the_offender():
    with pytest.raises(EtudeError, match="task 'task-039' was not tried after"):
        build_report(counted(5, 40), counted(5, 39))
    with pytest.raises(EtudeError, match="tolerance of 'genral': no such row is judged; did you mean 'general'"):
        report(5, 30, tolerances={"genral": 0.1})
    with pytest.raises(EtudeError, match=r"at threshold 1\.0, after .* at 0\.5: measure both sides alike"):
        build_report(counted(5), measured({"shop": tasks(5, 40)}, threshold=0.5))
    with pytest.raises(EtudeError, match="general: item 'i2' was measured on one side only"):
        report(5, 30, losses_before=lost(general=[1.0, 0.0]), losses_after=lost(general=[1.0, 0.0, 1.0]))
    both, general = lost(general=[1.0, 0.0]), {"general": tasks(1, 3, "g")}
    with pytest.raises(EtudeError, match="two rows are called 'general'; rename the task set"):
        build_report(counted(5, **general), counted(5, **general), both, both)


def test_answers_are_kept_side_by_side():
    one, two = Losses({}, {"Why?": ["because"]}), Losses({}, {"Why?": ["I can't say"]})
    got = report(5, 30, losses_before=one, losses_after=two)
    assert got.answers == {"Why?": {"before": ["because"], "after": ["I can't say"]}}


def test_examples_take_turns_between_kinds():
    before = [task("a", False), task("b", True), task("c", False), task("d", True), task("e", False)]
    after = [task("a", True), task("b", False), task("c", False), task("d", True), task("e", True)]
    got = pick_examples(before, after, count=5)
    assert [(e["task"], e["kind"]) for e in got] == [
        ("a", "solved now"), ("b", "no longer solved"), ("c", "solved by neither"), ("d", "solved by both"),
        ("e", "solved now"),
    ]  # fmt: skip
    assert [e["task"] for e in pick_examples(before, after, count=2)] == ["a", "b"]
    shown = got[0]["before"]
    assert [m["role"] for m in shown["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert shown["messages"][1]["tool_calls"] == [{"name": "act", "arguments": '{"on": "a"}'}]
    assert (shown["reward"], shown["turns"], shown["stop"]) == (0.0, 2, "done")


def test_an_example_tells_its_failure_and_cuts_what_is_long():
    broken = task("a", False, says="x" * 5000)
    broken.episodes = [Episode(broken.episodes[0].leaf, failure=Failure(Boundary.MODEL, "lost connection"))]
    got = pick_examples([broken], [task("a", True)])[0]
    assert got["before"]["failure"] == "model: lost connection"
    assert got["before"]["messages"][-1]["content"].endswith("… (1000 characters more)")
    assert pick_examples([Trajectory("t", "a")], [task("a", True)]) == []
