"""apps/worlds and `etude env`: what is listed, what a check prints and keeps, and how it ends."""

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from etude.apps import worlds
from etude.apps.cli.main import main
from etude.core import parts
from etude.core.errors import MissingExtra

ROOT = Path(__file__).resolve().parents[2]
MINE = """
from etude.environments.base import Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.trajectory import Message

class Session(ToolSession):
    async def begin(self, task, seed):
        self.task_ = task
        return Observation((Message("user", f"Say {task.data['n']}."),))

    async def finish(self, answer):
        return float(answer == str(self.task_.data["n"])) * BEST

class world(Tasks):
    name = "mine"
    reward_range = (0.0, 1.0)

    def tasks(self, split):
        return [Task(f"{split}/{n}", self, split, {"n": f"{split} {n}"}, provenance="here") for n in range(5)]

    def open(self):
        return Session()

    def solve(self, task, seed):
        return [Message("assistant", task.data["n"])]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a world that is sound and one that pays too much."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ETUDE_QUIET", "1")
    (tmp_path / "mine.py").write_text(MINE.replace("BEST", "1"))
    (tmp_path / "rich.py").write_text(MINE.replace("BEST", "2"))
    return tmp_path


def out(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert main(["env", *argv, *(["--episodes", "6", "--at-once", "4"] if argv[0] == "check" else [])]) == code
    return capsys.readouterr().out


def test_a_world_of_ones_own_is_checked_by_its_place(capsys: pytest.CaptureFixture[str]):
    text = out(capsys, "check", "mine.py:world")
    assert "mine.py:world: train 5, dev 5, test 5" in text
    assert "passed  same_seed" in text
    assert "gold                1.000 [1.000, 1.000], 6 episodes" in text


def test_a_failed_check_is_the_exit_status_and_named(capsys: pytest.CaptureFixture[str]):
    text = out(capsys, "check", "mine.py:world", "rich.py:world", code=1)
    (failed,) = [line for line in text.splitlines() if line.startswith("  failed")]
    assert failed.startswith("  failed  rewards     task train/")
    assert failed.endswith(": 2 is outside reward_range 0 to 1")


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]):
    mine, rich = json.loads(out(capsys, "check", "mine.py:world", "rich.py:world", "--json", code=1))
    assert (mine["passed"], rich["passed"]) == (True, False)
    assert mine["checks"]["rewards"]["result"] == "passed"
    assert rich["checks"]["rewards"]["problems"]
    assert rich["gold"]["mean"] == 2.0
    assert hasattr(importlib.import_module("rich"), "__path__")  # the library of that name is still what is imported


def test_what_is_written_is_listed(capsys: pytest.CaptureFixture[str], here: Path):
    out(capsys, "check", "mine.py:world", "--write")
    kept = json.loads((here / "evidence/worlds/mine-world.json").read_text())
    assert kept["world"] == "mine.py:world"
    assert kept["made"]["date"]
    (row,) = [line for line in out(capsys, "list").splitlines() if line.startswith("mine.py:world ")]
    assert row.split()[:8] == ["mine.py:world", "yes", "5", "5", "5", "0.00", "0.00", "1.00"]
    assert {row["world"] for row in json.loads(out(capsys, "list", "--json"))} >= {*parts.find("environments")}


def test_a_policy_is_scored_and_its_score_outlives_the_next_check(
    capsys: pytest.CaptureFixture[str], here: Path, tiny_policy, monkeypatch: pytest.MonkeyPatch
):
    tiny_policy.save(here / "model")
    text = out(capsys, "check", "mine.py:world", "--write", "--policy", "./model", "--tasks", "3")
    assert "model               0.000 [0.000, 0.000], 3 episodes" in text
    out(capsys, "check", "mine.py:world", "--write")
    kept = json.loads((here / "evidence/worlds/mine-world.json").read_text())
    score = {"split": "test", "episodes": 3, "failed": 0, "mean": 0.0, "low": 0.0, "high": 0.0}
    assert kept["models"] == {"model": score}
    assert "model 0.00" in out(capsys, "list")


def test_what_is_not_installed_is_listed_with_its_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    module = importlib.import_module("etude.environments.bfcl")

    def absent() -> None:
        raise MissingExtra("bfcl-eval is not installed; run:  pip install something")

    monkeypatch.setattr(module, "_package", absent)
    assert worlds.install("bfcl") == f"pip install --no-deps bfcl-eval=={module.VERSION}"
    monkeypatch.delattr(module, "INSTALL")
    assert worlds.install("bfcl") == "pip install something"
    (row,) = [line for line in out(capsys, "list").splitlines() if line.startswith("bfcl ")]
    assert "pip install something" in row


def test_a_suite_that_is_missed_only_by_the_tasks_is_not_taken_for_a_world_without_any(
    capsys: pytest.CaptureFixture[str], here: Path
):
    lacking = MINE.replace("return [Task(", "raise MissingExtra('run:  pip install suite')\n        return [Task(")
    (here / "lacking.py").write_text("from etude.core.errors import MissingExtra\n" + lacking)
    assert main(["env", "check", "lacking.py:world"]) == 2
    assert "pip install suite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["check"], "which world? give a name, path/to/file.py:NAME, or --all"),
        (["check", "dsk"], "no part 'environments/dsk'; did you mean 'desk'?"),
        (["check", "none.py:world"], "no file 'none.py' to take the world 'world' from"),
        (["check", "mine.py:wrld"], "mine.py has no 'wrld'; did you mean 'world'?"),
        (["list", "desk"], "env list takes no name (given 'desk'); `etude env check` does"),
    ],
)
def test_errors_say_what_to_do(capsys: pytest.CaptureFixture[str], argv: list[str], words: str):
    assert main(["env", *argv]) == 2
    assert words in capsys.readouterr().err


def test_evidence_goes_where_the_world_is_from(here: Path):
    assert worlds.folder("desk") == ROOT / "evidence" / "worlds"
    assert worlds.folder("{bfcl: {category: irrelevance}}") == ROOT / "evidence" / "worlds"
    assert worlds.folder("desk.py:world") == Path("evidence/worlds")


def test_evidence_that_cannot_be_read_says_how_to_write_it_again(here: Path):
    (here / "evidence/worlds").mkdir(parents=True)
    (here / "evidence/worlds/desk.json").write_text("{")
    with pytest.raises(worlds.EtudeError, match=r"desk\.json is not JSON"):
        worlds.evidence()


def test_make_test_worlds_installs_what_every_world_asks_for():
    from etude.apps.cli.install import of_world
    from etude.environments.verifiers import VERSION

    makefile = (ROOT / "Makefile").read_text()
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["worlds"]
    held = {extra for names in re.findall(r"etude\[(.*?)\]", " ".join(whole)) for extra in names.split(",")}
    for name in parts.find("environments"):
        extras, alone = of_world(name)
        assert {*extras} <= held, name
        for package in alone:
            assert package in makefile or any(one.startswith(package) for one in whole), name
    assert f"verifiers=={VERSION}" in makefile
