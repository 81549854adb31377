"""What the pages say is so: their code is run, their tables are compared with the code, their links are followed."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import etude
from etude.apps.cli.main import parser
from etude.core import parts
from etude.policies.scripted import scripted
from etude.trajectory.store import Store

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: str, language: str = "") -> list[tuple[str, str, str]]:
    """(language, title, body) of the fenced blocks of a page."""
    found = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    return [block for block in found if language in ("", block[0])]


def follow(page: str, folder: Path, *python_path: Path) -> None:
    """Write a page's titled files into a folder, run its console blocks there, and compare what they print.

    A line `...` stands for any lines, `...` within a line for any words.
    """
    for _, title, body in blocks(page):
        if title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(body, encoding="utf-8")
    prompts = [body for _, _, body in blocks(page, "console")]
    assert prompts, f"{page} has no console block"
    for step in re.split(r"^\$ ", "".join(prompts), flags=re.MULTILINE)[1:]:
        command, expected = step.split("\n", 1)
        shown = shell(command, folder, *python_path)
        pattern = "".join(r"(?:.*\n)*" if line == "..." else _line(line) for line in expected.rstrip("\n").splitlines())
        assert re.fullmatch(pattern, shown), f"{page}: {command}\n--- prints\n{shown}--- the page says\n{expected}"


def _line(line: str) -> str:
    return ".*".join(re.escape(piece) for piece in line.split("...")) + r"\n"


def shell(command: str, folder: Path, *python_path: Path) -> str:
    """What a command prints, errors among it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(map(str, python_path)), "ETUDE_QUIET": "1"}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, shell=True, cwd=folder, env=env, text=True, **both).stdout


@every_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@every_page
def test_commands_are_commands(page):
    for language, _, body in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in body.splitlines() if not language and page.name != "cli.md" else ():
            if line.startswith("etude "):
                parser().parse_known_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_generated_blocks_are_up_to_date(page):
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    text = page.read_text(encoding="utf-8")
    assert generate.updated(text) == text, "run  python docs/generate.py"


def test_the_site_has_every_page():
    written = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(written)["nav"])))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


def test_the_readme_shows_the_example():
    example = (ROOT / "examples" / "custom_agent.py").read_text(encoding="utf-8")
    assert example in [body for _, _, body in blocks("README.md", "python")]


def test_own_environment(tmp_path):
    follow("docs/own-environment.md", tmp_path, ROOT / "examples")
    from etude.apps.run import SCHEMA
    from etude.core import recipe

    recipe.validate(recipe.load(tmp_path / "practise.yaml"), SCHEMA)


def test_own_method(tmp_path):
    """In a copy of the repository, to which the page's three files are added."""
    for folder in ("src", "recipes", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    follow("docs/own-method.md", tmp_path, tmp_path / "src")
    assert "4 passed" in shell("pytest tests/credit/test_rank.py", tmp_path, tmp_path / "src")
    doctest = shell("pytest --doctest-modules src/etude/credit/rank.py", tmp_path, tmp_path / "src")
    assert "1 passed" in doctest


def test_own_method_in_another_package(tmp_path):
    """As an installer would lay it out: the module, and the entry points beside it."""
    files = {title: body for _, title, body in blocks("docs/own-method.md") if title}
    project = tomllib.loads(files["etude-rank/pyproject.toml"])["project"]
    information = tmp_path / "etude_rank-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = [f"{name} = {module}" for name, module in project["entry-points"]["etude.parts"].items()]
    (information / "entry_points.txt").write_text("\n".join(["[etude.parts]", *points]))
    (tmp_path / "etude_rank.py").write_text(files["src/etude/credit/rank.py"])
    assert "Rank credit" in shell("etude parts credit/rank", tmp_path, tmp_path)
    assert shell("python -c 'import etude; print(etude.credit.rank([0, 1]))'", tmp_path, tmp_path) == "[-0.5  0.5]\n"


def test_merging(tmp_path, monkeypatch, tiny_policy):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "one", "two"):
        tiny_policy.save(name)
    ((_, _, code),) = blocks("docs/merging.md", "python")
    exec(code)
    assert etude.policy("merged").renderer.tokenizer.chat_template == tiny_policy.renderer.tokenizer.chat_template
    page = (ROOT / "docs" / "merging.md").read_text(encoding="utf-8")
    assert {*re.findall(r"^\| `(\w+)`", page, re.MULTILINE)} == {*parts.find("weights/merge")}


def test_sandbox(tmp_path):
    follow("docs/sandbox.md", tmp_path, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))


def test_formats(tmp_path):
    follow("docs/formats.md", tmp_path)


def test_the_query_of_the_store(tmp_path, monkeypatch):
    import duckdb

    world = etude.world("desk", difficulty=1)
    tasks = world.tasks("test")[:3]
    played = [etude.rollout(scripted(world.solve(task, 0)), [task], group=2)[0] for task in tasks]
    Store(tmp_path / "trajectories").write(played)
    monkeypatch.chdir(tmp_path)
    ((_, _, query),) = blocks("docs/formats.md", "sql")
    rows = duckdb.sql(query).fetchall()
    assert rows == [("desk", "test", 6, 1.0, sum(t.episodes[0].turns for t in played) / 3, 0)]


def test_the_arena_of_the_games_page_runs(tmp_path):
    for n, (_, _, code) in enumerate(blocks("docs/games.md", "python")):
        (tmp_path / f"{n}.py").write_text(code)
        shown = shell(f"python {n}.py", tmp_path, ROOT / "src")
        assert "'one': " in shown if "arena" in code else "planning: " in shown, shown
