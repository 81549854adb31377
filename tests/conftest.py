"""Records which systems' exact properties hold.

A test marked `@pytest.mark.exact(56)` checks the exact property of system 56. `pytest --write-exact` writes what the
run found into `evidence/exact.json`; systems whose tests were not run keep their entry.

Tests of a suite that is not installed are skipped. Where ETUDE_ALL_SUITES is set, as by `make test-worlds`, a skipped
test fails.
"""

import json
import os
import subprocess
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("etude", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("etude")
ROOT = Path(__file__).resolve().parent.parent
_outcomes: dict[int, dict[str, bool]] = {}
NO_SUITE = ("ordinary user", "does not let it shut itself in")
"""Of reasons to skip that no package would mend."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-exact", action="store_true", help="update evidence/exact.json")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "exact(n, ...): checks the exact property of the numbered systems")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = (yield).get_result()
    fail_where_all_suites_are_due(report)
    for mark in item.iter_markers("exact"):
        for n in mark.args:
            tests = _outcomes.setdefault(n, {})
            # Set-up, call and tear-down must all pass, and a skipped test shows nothing.
            tests[item.nodeid] = tests.get(item.nodeid, True) and report.passed


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    fail_where_all_suites_are_due((yield).get_result())


def fail_where_all_suites_are_due(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A suite that `make test-worlds` did not find is an error and not a skip."""
    if report.skipped and os.environ.get("ETUDE_ALL_SUITES") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(text in reason for text in NO_SUITE):
            report.outcome, report.longrepr = "failed", f"ETUDE_ALL_SUITES is set, and this was {reason}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--write-exact", default=False):
        write_exact(_outcomes, Path(session.config.rootpath) / "evidence" / "exact.json")


def write_exact(outcomes: dict[int, dict[str, bool]], file: Path) -> None:
    """Merge the outcomes (system -> test -> passed) into the file."""
    entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip() or None
    for n, tests in outcomes.items():
        entries[str(n)] = {"passed": all(tests.values()), "tests": sorted(tests), "commit": commit}
    ordered = {n: entries[n] for n in sorted(entries, key=int)}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory):
    """A `policies/local` over a real but hardly trained tiny model: for tests that need a model and no skill."""
    from etude.policies.local import local
    from etude.synthesis import tiny

    return local(str(tiny.ensure(tmp_path_factory.mktemp("tiny"), steps=2)), context=1024)
