import pytest

from etude.core.errors import EtudeError, FormatError
from etude.evaluation.compare import compare
from etude.evaluation.html import render_comparison, write_comparison, write_report
from etude.evaluation.report import build_report
from tests.evaluation.samples import counted, lost, report, task
from tests.evaluation.test_html import Page


@pytest.fixture
def runs(tmp_path):
    """Two runs on the same tasks, and one on other ones."""
    base = lost(general=[1.0] * 20, diversity=[0.8, 0.82, 0.81])
    dull = lost(general=[1.0] * 20, diversity=[0.6, 0.62, 0.61])
    cost = {"train": {"seconds": 90.0, "tokens_trained": 5_000}}
    gentle = report(5, 25, losses_before=base, losses_after=base, cost=cost, name="gentle <b>")
    harsh = report(5, 35, losses_before=base, losses_after=dull, cost={"train": {"seconds": 30.0}}, name="harsh")
    fewer = report(3, 20, of=30, name="fewer")  # tasks 0..29 of the 40
    for name, made in {"gentle": gentle, "harsh": harsh, "fewer": fewer}.items():
        write_report(made, tmp_path / name)
    return tmp_path


def test_runs_side_by_side(runs):
    got = compare([runs / "gentle", runs / "harsh"])
    gentle, harsh = got.entries
    assert (gentle.verdict, harsh.verdict) == ("better", "narrower")
    assert (gentle.gain.difference, harsh.gain.difference) == (pytest.approx(0.5), pytest.approx(0.75))
    assert harsh.worst is not None
    assert harsh.worst.name == "diversity"
    lines = str(got).splitlines()
    assert lines[0].split() == ["run", "verdict", "success", "change", "worst", "loss", "time", "trained", "sampled"]
    assert "diversity +4.0x" in lines[2]
    assert lines[1].endswith("1 min 30 s  5.0 k    -")
    assert "on 40 held-out tasks" in lines[3]
    assert got.notes == []


def test_other_tasks_are_refused_unless_the_shared_ones_are_asked_for(runs):
    told = r"success: .*gentle was measured on 40 tasks, .*fewer on 30.*'task-030'.*--common"
    with pytest.raises(EtudeError, match=told):
        compare([runs / "gentle", runs / "fewer"])
    got = compare([runs / "gentle", runs / "fewer"], common=True)
    gentle, fewer = got.entries
    assert (gentle.gain.items, fewer.gain.items) == (30, 30)
    assert gentle.gain.difference == pytest.approx(20 / 30)  # tasks 5..24 were gained, all among the shared ones
    assert fewer.gain.difference == pytest.approx(17 / 30)
    assert got.notes == ["success is compared on the 30 tasks that all runs share, of 40, 30"]
    assert "note: success is compared on the 30 tasks" in str(got)
    assert "30 tasks that all runs share" in Page(render_comparison(got)).text


def test_a_verdict_is_found_anew_on_the_shared_tasks(tmp_path):
    # every task that this run gained is among those that the other never tried
    write_report(report(20, 40, of=40), tmp_path / "a")
    write_report(report(0, 20, of=20), tmp_path / "b")
    assert compare([tmp_path / "a"]).entries[0].verdict == "better"
    assert compare([tmp_path / "a", tmp_path / "b"], common=True).entries[0].verdict == "no different"


def test_runs_that_share_nothing(tmp_path):
    write_report(report(5, 30), tmp_path / "a")
    from etude.evaluation.gain import measured

    other = measured({"shop": [task("elsewhere", True), task("far", False)]})
    write_report(build_report(other, other), tmp_path / "b")
    with pytest.raises(EtudeError, match="they share none"):
        compare([tmp_path / "a", tmp_path / "b"], common=True)


def test_another_threshold_is_refused(tmp_path):
    from etude.evaluation.gain import measured
    from tests.evaluation.samples import tasks

    half = measured({"shop": tasks(5, 40)}, threshold=0.5)
    write_report(build_report(half, half), tmp_path / "a")
    write_report(build_report(counted(5), counted(5)), tmp_path / "b")
    with pytest.raises(EtudeError, match=r"another reward threshold .*0\.5.*1\.0"):
        compare([tmp_path / "a", tmp_path / "b"])


def test_no_runs_and_no_report(tmp_path):
    with pytest.raises(EtudeError, match="no runs to compare"):
        compare([])
    with pytest.raises(FormatError, match=r"holds no report\.json"):
        compare([tmp_path])


def test_the_page(runs, tmp_path):
    written = write_comparison(compare([runs / "gentle", runs / "harsh"]), tmp_path / "out" / "page.html")
    page = Page(written.read_text())
    assert "gentle <b>" in page.text
    assert "b" not in page.tags
    assert page.tags.count("circle") == 2
    assert "4.0 × tolerance" in page.text
