"""The benchmarks run, and the page says what they printed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
NAMES = sorted({file.stem for file in BENCHMARKS.glob("*.py")} - {"bench", "run", "schedule"})
MEASURED = {"date": "2026-01-02", "commit": "abc", "machine": "a processor", "versions": "torch 2"}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in [n for n, m in sys.modules.items() if str(BENCHMARKS) in (getattr(m, "__file__", None) or "")]:
        del sys.modules[name]


def test_the_page_has_every_benchmark_and_its_figures(load):
    bench, run = load("bench"), load("run")
    figures = [
        bench.figure("a ratio", [3.0, 1.0, 2.5], least=2.5),
        bench.figure("too slow", [1.2], "s", most=1),
        bench.figure("a rate", [123.4], "tokens/s"),
    ]
    page = run.page({"tree": {"figures": figures, "chart": "<svg/>"} | MEASURED})
    assert "| a ratio | 2.5 × | 1 to 3 | 3 | at least 2.5 | yes |" in page
    assert "| too slow | 1.2 s |  | 1 | at most 1 | no |" in page
    assert "| a rate | 123 tokens/s |  | 1 |  |  |" in page
    assert "![tree](images/tree.svg)" in page
    assert "2026-01-02, commit abc; a processor; torch 2." in page
    assert sorted(run.NAMES) == NAMES
    assert page.count("Not measured yet.") == len(NAMES) - 1
    assert all(f"\n## {name}\n" in page for name in NAMES)


def test_the_page_in_the_docs_is_what_the_results_give(load):
    run = load("run")
    results = json.loads(run.RESULTS.read_text(encoding="utf-8")) if run.RESULTS.exists() else {}
    assert (run.DOCS / "performance.md").read_text(encoding="utf-8") == run.page(results)


def test_sides_take_turns_and_the_first_round_is_left_out(load):
    bench, calls = load("bench"), []

    def side(name: str):
        return lambda: calls.append(name) or float(len(calls))

    seconds = bench.interleave({"a": side("a"), "b": side("b")}, 2)
    assert "".join(calls) == "baabba"
    assert seconds == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert bench.fastest({"a": [9, 1, 1], "b": [2, 2, 2]}, "a", "b") == "a"


def test_the_exponent_is_that_of_the_power(load):
    assert load("growth").slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["figures"]
