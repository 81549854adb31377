"""Recipes: what is read, what is refused and in which words, and that a resolved recipe stays as it is."""

import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from etude.core import parts, recipe
from etude.core.errors import RecipeError
from etude.core.recipe import PartName

WRITTEN = """\
system: 56
departures: [a yard instead of a city]
policy: tiny
environment: yard
environment.difficulty: 3
stages:
  - collect: {by: expert, episodes: 200}
  - train: {objective: likelihood, epochs: 2}
  - practise: {steps: 100, scoring: [environment, exact], credit: group, lr: 1e-4}
evaluate: {tasks: 12}
evidence: {against: {scoring: [environment]}, seeds: 3}
"""
YARD = '''
from dataclasses import dataclass
from etude.core.parts import part

@part
@dataclass
class yard:
    """A place outside."""
    difficulty: int = 1
    weather: str = "fine"
'''


def collect(run: Any, *, episodes: int, by: Literal["expert", "policy"] = "policy") -> None: ...


def train(
    run: Any, *, objective: Annotated["str | dict[str, Any]", PartName("objectives")] = "likelihood", epochs: int = 1
) -> None: ...


def practise(
    run: Any,
    *,
    steps: int = 10,
    lr: float = 1e-3,
    scoring: "Annotated[list[str | dict], PartName('scoring')]" = ["environment"],  # noqa: B006
    credit: Annotated[str | dict, PartName("credit")] = "rloo",
    dynamic: bool = False,
    hook: Any = print,
) -> None: ...


def evaluate(run: Any, *, tasks: int = 100, splits: tuple[str, ...] = ("test",)) -> None: ...


def evidence(run: Any, *, against: dict[str, Any], seeds: int = 3, measure: str = "success") -> None: ...


STAGES = {f.__name__: f for f in (collect, train, practise)}
ALL = STAGES | {"evaluate": evaluate, "evidence": evidence}


@pytest.fixture(autouse=True)
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part from outside etude, as another package adds it."""
    (tmp_path / "etude_test_yard.py").write_text(YARD)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("environments/yard", "etude_test_yard", "etude.parts")
    monkeypatch.setattr(parts, "entry_points", lambda group: [entry])
    monkeypatch.setattr(recipe.parts, "load", parts.load.__wrapped__)  # the cache would outlive the temporary module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "planner-r1.yaml"
    path.write_text(WRITTEN)
    return path


def error(file: Path, *overrides: str, stages: Any = ALL) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe.resolve(recipe.load(file, overrides), stages)
    return str(caught.value)


# -- reading and overriding ----------------------------------------------------------------------------------------


def test_parts_and_stages_have_one_form(file: Path):
    data = recipe.load(file).data
    assert data["policy"] == {"tiny": {}}
    assert data["environment"] == {"yard": {"difficulty": 3}}
    assert data["agent"] == {"native": {}}
    assert data["weights"] == {"full": {}}
    assert data["seed"] == 0
    assert data["stages"][0] == {"collect": {"by": "expert", "episodes": 200}}
    assert data["stages"][2]["practise"]["lr"] == pytest.approx(1e-4)  # YAML 1.1 reads a string here


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("environment.difficulty=5", ("environment", "yard", "difficulty"), 5),
        ("stages[1].train.epochs=3", ("stages", 1, "train", "epochs"), 3),
        ("stages.1.train.epochs=3", ("stages", 1, "train", "epochs"), 3),
        ("stages[1].epochs=3", ("stages", 1, "train", "epochs"), 3),
        ("stages[2].dynamic=true", ("stages", 2, "practise", "dynamic"), True),
        ("stages[2].scoring=[exact]", ("stages", 2, "practise", "scoring"), ["exact"]),
        ("stages[2].scoring[1]=f1", ("stages", 2, "practise", "scoring"), ["environment", "f1"]),
        ("stages[2].credit.scale=false", ("stages", 2, "practise", "credit"), {"group": {"scale": False}}),
        ("stages[2].credit.group.scale=false", ("stages", 2, "practise", "credit"), {"group": {"scale": False}}),
        ("stages[0]=train", ("stages", 0), {"train": {}}),
        ("policy=smollm2", ("policy",), {"smollm2": {}}),
        ("environment=yard", ("environment", "yard", "difficulty"), 3),  # the same part keeps its settings
        ("environment={yard: {weather: wet}}", ("environment", "yard"), {"weather": "wet"}),
        ("evaluate.tasks=7", ("evaluate", "tasks"), 7),
        ("evidence.seeds=5", ("evidence", "seeds"), 5),
        ("evidence.against.scoring=[exact]", ("evidence", "against", "scoring"), ["exact"]),
        ("seed=1", ("seed",), 1),
        ("title=[a", ("title",), None),
    ],
)
def test_override(file: Path, override: str, place: tuple[Any, ...], value: Any):
    if value is None:
        assert "is not YAML" in error(file, override)
        return
    found: Any = recipe.load(file, [override]).data
    for key in place:
        found = found[key]
    assert found == value


def test_another_part_drops_the_settings_of_the_first(file: Path):
    assert recipe.load(file, ["environment=shed"]).data["environment"] == {"shed": {}}


def test_loading_does_not_change_the_defaults(file: Path):
    recipe.load(file, ["evaluate.tasks=7", "departures=[x]"])
    assert recipe.DEFAULTS["evaluate"] == {}
    assert recipe.DEFAULTS["departures"] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["polcy=tiny"],
            "polcy: no such key\ndid you mean 'policy'?  There are: name, system, title, tags, departures,",
        ),
        (["stages[9].epochs=1"], "stages[9].epochs: no stage '9'\nThere are: 0 collect, 1 train, 2 practise"),
        (["stages[1].practise.steps=1"], "stages[1].practise.steps: nothing is at 'practise'"),
        (["stages[2].steps.more=1"], "stages[2].steps.more: 'steps' holds 100, which has no keys of its own"),
        (["seed.x=1"], "seed.x: seed has no keys of its own\nwrite seed=VALUE"),
        (["policy"], "'policy' is not an override; write key=value"),
        (["stages=[{a: 1, b: 2}]"], "stages[0]: {'a': 1, 'b': 2} is not one stage"),
        (["policy=3"], "policy: 3 is not a part; write its name, or {name: {setting: value}}"),
    ],
)
def test_refused_when_loading(file: Path, overrides: list[str], message: str):
    assert message in error(file, *overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy: tiny\npolicy: local\n", "recipe 'bad.yaml', line 2: 'policy' is given twice"),
        ("policy: [tiny\n", "recipe 'bad.yaml', line 2: expected ',' or ']'"),
        ("- policy\n", "recipe 'bad.yaml': a recipe is a mapping of keys, not list"),
        ("environment.difficulty: 3\n", "environment.difficulty: there is no environment to set 'difficulty' of"),
    ],
)
def test_unreadable_file(tmp_path: Path, text: str, message: str):
    (tmp_path / "bad.yaml").write_text(text)
    assert message in error(tmp_path / "bad.yaml")


def test_scale_says_how_far_a_run_spreads(file: Path):
    assert recipe.resolve(recipe.load(file), ALL)["scale"] == {"learner": "data", "memory": None, "workers": 0}
    spread = recipe.load(file, ["scale.workers=4", "scale.learner=shard"])
    assert recipe.resolve(spread, ALL)["scale"] == {"learner": "shard", "memory": None, "workers": 4}
    assert "scale.workers: -1 is below 0\nworkers: 0 plays in this process" in error(file, "scale.workers=-1")
    assert "scale.workers: 'all' is not int" in error(file, "scale.workers=all")
    assert "scale.learner: 'shards' is not" in error(file, "scale.learner=shards")
    assert "did you mean 'shard'?" in error(file, "scale.learner=shards")
    assert "scale takes no 'worker' (given 4)\ndid you mean 'workers'?" in error(file, "scale.worker=4")
    assert "scale: 4 is not dict" in error(file, "scale=4")


def test_found_by_name_and_by_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "recipes" / "credit").mkdir(parents=True)
    (tmp_path / "recipes" / "credit" / "planner-r1.yaml").write_text("policy: tiny")
    (tmp_path / "recipes" / "quickstart.yaml").write_text("policy: tiny")
    monkeypatch.setattr(recipe, "shipped", lambda folder: tmp_path / folder)
    assert recipe.load("planner-r1").file == recipe.load("credit/planner-r1").file
    assert recipe.load("quickstart").name == "quickstart"
    with pytest.raises(RecipeError, match=r"no recipe 'quikstart'\ndid you mean 'quickstart'\?  There are: planner-r1"):
        recipe.load("quikstart")


# -- checking ------------------------------------------------------------------------------------------------------


def test_misspelt_part_is_the_golden_message(file: Path):
    names = list(parts.find("credit"))
    there = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    assert error(file, "stages[2].credit=gruop") == (
        "recipe 'planner-r1.yaml', stages[2].credit: no part 'credit/gruop'\n"
        f"did you mean 'credit/group'?  There are: {there}\n"
        "etude parts credit   lists them with their papers"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stages[1]={trian: {}}"],
            "recipe 'planner-r1.yaml', stages[1]: no stage 'trian'\n"
            "did you mean 'train'?  There are: collect, train, practise, evaluate, evidence",
        ),
        (
            ["stages[1].epoch=3"],
            "recipe 'planner-r1.yaml', stages[1].epoch: train takes no 'epoch' (given 3)\n"
            "did you mean 'epochs'?  There are: objective, epochs",
        ),
        (
            ["stages[1].epochs=two"],
            "recipe 'planner-r1.yaml', stages[1].epochs: 'two' is not int\nepochs: int",
        ),
        (["stages[1].epochs=2.5"], "stages[1].epochs: 2.5 is not int"),
        (["stages[1].epochs=true"], "stages[1].epochs: True is not int"),
        (["stages[2].lr=fast"], "stages[2].lr: 'fast' is not float"),
        (["stages[2].dynamic=1"], "stages[2].dynamic: 1 is not bool"),
        (["stages[2].scoring=exact"], "stages[2].scoring: 'exact' is not list[str | dict]"),
        (["stages[2].scoring=[exakt]"], "stages[2].scoring[0]: no part 'scoring/exakt'"),
        (
            ["stages[0].by=expart"],
            "stages[0].by: 'expart' is not Literal['expert', 'policy']\n"
            "did you mean 'expert'?  There are: expert, policy",
        ),
        (["stages[0]=collect"], "stages[0]: collect needs 'episodes'\nepisodes: int"),
        (
            ["environment.dificulty=3"],
            "recipe 'planner-r1.yaml', environment.dificulty: environments/yard takes no 'dificulty' (given 3)\n"
            "did you mean 'difficulty'?  There are: difficulty, weather",
        ),
        (["environment.difficulty=hard"], "environment.difficulty: 'hard' is not int"),
        (["policy=smolm2"], "policy: no part 'policies/smolm2'\ndid you mean 'policies/smollm2'?"),
        (["stages[2].credit={group: {scael: true}}"], "stages[2].credit.scael: credit/group takes no 'scael'"),
        (["evaluate.taks=1"], "evaluate.taks: evaluate takes no 'taks'"),
        (["evidence={seeds: 3}"], "evidence: evidence needs 'against'"),
        (["system=x"], "system: 'x' is not int | None"),
        (["departures=none"], "departures: 'none' is not list[str]"),
    ],
)
def test_refused(file: Path, overrides: list[str], message: str):
    assert message in error(file, *overrides)


def test_validate_accepts_what_resolve_accepts(file: Path):
    recipe.validate(recipe.load(file), ALL)
    with pytest.raises(RecipeError, match="takes no 'epoch'"):
        recipe.validate(recipe.load(file, ["stages[1].epoch=1"]), ALL)


# -- resolving -----------------------------------------------------------------------------------------------------


def test_every_default_is_filled_in(file: Path):
    resolved = recipe.resolve(recipe.load(file), ALL)
    assert resolved["name"] == "planner-r1"
    assert resolved["environment"] == {"yard": {"difficulty": 3, "weather": "fine"}}
    assert resolved["policy"]["local"]["model"] == "tiny"
    assert resolved["stages"][0] == {"collect": {"episodes": 200, "by": "expert"}}
    practise_options = resolved["stages"][2]["practise"]
    assert practise_options["dynamic"] is False
    assert "hook" not in practise_options  # a function is not data
    assert [list(part) for part in practise_options["scoring"]] == [["environment"], ["exact"]]
    assert practise_options["credit"]["group"] == {
        name: argument.default for name, argument in parts.schema("credit/group").items()
    }
    assert resolved["evaluate"] == {"tasks": 12, "splits": ["test"]}
    assert resolved["evidence"] == {"against": {"scoring": ["environment"]}, "seeds": 3, "measure": "success"}


def test_resolved_recipe_runs_again_to_the_same(file: Path, tmp_path: Path):
    resolved = recipe.resolve(recipe.load(file, ["seed=4", "stages[2].lr=0.1"]), ALL)
    run_yaml = tmp_path / "run.yaml"
    run_yaml.write_text(recipe.dump(resolved))
    again = recipe.load(run_yaml)
    assert again.name == "planner-r1"  # the run keeps its name, and so its directory
    assert recipe.resolve(again, ALL) == resolved


@pytest.mark.parametrize("value", ["1e-4", "yes", "0123", "a: b", 1e-4, 1e22, True, None, ["x", {"y": -0.5}]])
def test_dumped_values_are_read_back(value: Any):
    assert recipe.parse(recipe.dump({"key": value})) == {"key": value}


def test_a_path_is_a_local_model(file: Path, tmp_path: Path):
    resolved = recipe.resolve(recipe.load(file, [f"policy={tmp_path}", "policy.context=64"]), ALL)
    assert resolved["policy"]["local"]["model"] == str(tmp_path)
    assert resolved["policy"]["local"]["context"] == 64


def test_build_gives_the_part():
    assert recipe.build("environments", {"yard": {"difficulty": 2}}).difficulty == 2
    assert recipe.build("environments", "environments/yard", weather="wet").weather == "wet"


JUDGED = 'stages[2].scoring=[{judge: {policy: {openai: {model: gpt-9}}, rubric: "Be brief.", votes: 3}}]'


def test_a_part_takes_a_part_where_its_argument_is_typed_by_a_protocol(file: Path, tmp_path: Path):
    resolved = recipe.resolve(recipe.load(file, [JUDGED]), ALL)
    (judge,) = resolved["stages"][2]["practise"]["scoring"]
    assert judge["judge"]["policy"]["openai"]["model"] == "gpt-9"
    assert judge["judge"]["policy"]["openai"]["max_retries"] == 5  # the defaults of the inner part are filled in too
    run_yaml = tmp_path / "run.yaml"
    run_yaml.write_text(recipe.dump(resolved))
    assert recipe.resolve(recipe.load(run_yaml), ALL) == resolved
    built = recipe.build("scoring", judge)
    assert (built.policy.model, built.votes) == ("gpt-9", 3)
    given = object()
    assert recipe.build("scoring", {"judge": {"policy": given, "rubric": "r"}}).policy is given


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy=opnai", "scoring[0].policy: no part 'policies/opnai'\ndid you mean 'policies/openai'?"),
        ("policy={openai: {modl: x}}", "scoring[0].policy.modl: policies/openai takes no 'modl' (given 'x')"),
        ("policy={openai: {}}", "scoring[0].policy: policies/openai needs 'model'"),
        ("{rubric: r}", "scoring[0]: scoring/judge needs 'policy'\npolicy: a part of policies"),
    ],
)
def test_a_part_inside_a_part_is_checked(file: Path, override: str, message: str):
    if override.startswith("{"):
        assert message in error(file, f"stages[2].scoring=[{{judge: {override}}}]")
    else:
        assert message in error(file, JUDGED, f"stages[2].scoring[0].judge.{override}")


def test_baseline_changes_every_stage_that_sets_the_option(file: Path):
    loaded = recipe.load(file, ["evidence.against={scoring: [f1], environment.difficulty: 1, seed: 9}"])
    other = recipe.baseline(loaded)
    assert other.data["stages"][2]["practise"]["scoring"] == ["f1"]
    assert "scoring" not in other.data["stages"][1]["train"]
    assert other.data["environment"] == {"yard": {"difficulty": 1}}
    assert other.data["seed"] == 9
    assert loaded.data["stages"][2]["practise"]["scoring"] == ["environment", "exact"]


def test_several_baselines_have_labels(file: Path):
    loaded = recipe.load(
        file, ["evidence.against={plain: {scoring: [f1]}, easy: {environment.difficulty: 1, seed: 9}}"]
    )
    plain, easy = recipe.baselines(loaded).values()
    assert list(recipe.baselines(loaded)) == ["plain", "easy"]
    assert plain.data["stages"][2]["practise"]["scoring"] == ["f1"]
    assert plain.data["environment"] == loaded.data["environment"]
    assert easy.data["environment"] == {"yard": {"difficulty": 1}}
    assert easy.data["stages"] == loaded.data["stages"]
    assert recipe.baseline(loaded).data == plain.data
    with pytest.raises(RecipeError, match=r"evidence.against.plain.scorin: no stage sets 'scorin'\ndid you mean"):
        recipe.baselines(recipe.load(file, ["evidence.against={plain: {scorin: [f1]}}"]))


def test_baseline_that_changes_nothing_is_refused(file: Path):
    with pytest.raises(RecipeError, match=r"evidence.against.scorin: no stage sets 'scorin'\ndid you mean 'scoring'"):
        recipe.baseline(recipe.load(file, ["evidence.against={scorin: [f1]}"]))
    with pytest.raises(RecipeError, match=r"evidence.against: \{\} changes nothing"):
        recipe.baseline(recipe.load(file, ["evidence={}"]))


def test_shipped_recipes_have_different_names():
    shipped = list(recipe.shipped("recipes").rglob("*.yaml"))
    assert len(recipe.files()) == len(shipped)


def test_what_is_shipped_goes_into_the_wheel():
    root = parts.PACKAGE.parent.parent
    written = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    sources = "".join(file.read_text() for file in parts.PACKAGE.rglob("*.py"))
    used = set(re.findall(r'shipped\("(\w+)"\)', sources))
    assert written["force-include"] == {folder: f"etude/{folder}" for folder in used}
    assert all(recipe.shipped(folder).is_dir() for folder in used)
