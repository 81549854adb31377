"""The catalogue: its entries, and a status that only files can give."""

import json
from pathlib import Path

import pytest

from etude.core import catalogue
from etude.core.errors import EtudeError, RecipeError

pytest_plugins = ["pytester"]
ROOMS = "agents credit curation environments evaluation evolve objectives policies search synthesis trajectory weights"
EFFECT = {"seeds": [0, 1, 2], "figures": {"success": {"value": 0.3, "interval": [0.1, 0.5]}}}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    recipes, evidence = tmp_path / "recipes", tmp_path / "evidence"
    (recipes / "credit").mkdir(parents=True)
    evidence.mkdir()
    (recipes / "credit" / "planner-r1.yaml").write_text("system: 56\npolicy: tiny\n")
    (recipes / "quickstart.yaml").write_text("policy: tiny\n")
    return recipes, evidence


def status(folders: tuple[Path, Path], n: int) -> str:
    return catalogue.systems(*folders)[n - 1].status


def test_entries_are_complete():
    entries = catalogue.entries()
    assert list(entries) == list(range(1, 218))
    for entry in entries.values():
        assert list(entry) == ["n", "title", "short", "room", "link"]
        assert entry["title"]
        assert entry["short"]
        assert entry["room"] in ROOMS.split()
        assert entry["link"] is None or entry["link"].startswith("https://arxiv.org/abs/")
    links = [entry["link"] for entry in entries.values() if entry["link"]]
    assert len(set(links)) == len(links)
    assert entries[56]["title"] == "Planner-R1: Reward Shaping Enables Efficient Agentic RL with Smaller LLMs"


def test_status_is_computed(folders: tuple[Path, Path]):
    _, evidence = folders
    system = catalogue.systems(*folders)[55]
    assert (system.n, system.short, system.recipe, system.status) == (56, "Planner-R1", "planner-r1", "missing")
    (evidence / "planner-r1.json").write_text(json.dumps(EFFECT))
    assert status(folders, 56) == "missing"  # an effect without its exact property
    (evidence / "exact.json").write_text('{"56": {"passed": true}, "57": {"passed": true}}')
    assert status(folders, 56) == "works"
    assert status(folders, 57) == "missing"  # there is no recipe
    (evidence / "planner-r1.json").unlink()
    assert status(folders, 56) == "exact"
    (evidence / "exact.json").write_text('{"56": {"passed": false}}')
    assert status(folders, 56) == "missing"


@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {**EFFECT, "seeds": [0, 1]},
        {**EFFECT, "seeds": [0, 0, 0]},
        {**EFFECT, "figures": {}},
        {**EFFECT, "figures": {"success": {"value": 0.3}}},
        {**EFFECT, "figures": {"success": {"value": float("nan"), "interval": [0.1, 0.5]}}},
        {**EFFECT, "figures": {"success": {"value": 0.3, "interval": [0.5, 0.1]}}},
    ],
)
def test_not_an_effect(evidence: dict):
    assert not catalogue.shows_effect(evidence)


def test_a_null_result_is_an_effect_too():
    assert catalogue.shows_effect({**EFFECT, "figures": {"success": {"value": 0.0, "interval": [-0.1, 0.1]}}})


def test_errors(folders: tuple[Path, Path]):
    recipes, evidence = folders
    (evidence / "exact.json").write_text("{")
    with pytest.raises(EtudeError, match=r"exact\.json"):
        catalogue.systems(*folders)
    (evidence / "exact.json").unlink()
    (recipes / "x.yaml").write_text("system: 218")
    with pytest.raises(RecipeError, match=r"recipe 'x.yaml', system: no system 218; they are numbered 1 to 217"):
        catalogue.systems(*folders)


def test_the_plugin_writes_only_when_asked(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")  # its own project, without ours
    pytester.makeconftest((Path(__file__).parent.parent / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.exact(3, 4)
        def test_both(): pass

        @pytest.mark.exact(4)
        @pytest.mark.parametrize("x", [1, 2])
        def test_one(x): assert x == 1

        @pytest.mark.exact(5)
        def test_skipped(): pytest.skip("no model")
        """
    )
    pytester.runpytest("--strict-markers").assert_outcomes(passed=2, failed=1, skipped=1)
    assert not (pytester.path / "evidence").exists()
    pytester.runpytest("--strict-markers", "--write-exact")
    entries = json.loads((pytester.path / "evidence" / "exact.json").read_text())
    assert {n: entry["passed"] for n, entry in entries.items()} == {"3": True, "4": False, "5": False}
    assert len(entries["4"]["tests"]) == 3
    pytester.makepyfile(test_other="import pytest\n\n@pytest.mark.exact(4)\ndef test_it(): pass")
    pytester.runpytest("--strict-markers", "--write-exact", "test_other.py")
    merged = json.loads((pytester.path / "evidence" / "exact.json").read_text())
    assert merged == {
        **entries,
        "4": {"passed": True, "tests": ["test_other.py::test_it"], "commit": entries["4"]["commit"]},
    }
