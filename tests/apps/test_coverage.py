"""Surveys' taxonomies filled with recipes: from what the recipes are, and with no gap unsaid."""

import pytest
import yaml

from etude.apps import coverage
from etude.apps.stages import STAGES
from etude.core import recipe as recipes
from etude.core.errors import EtudeError

SURVEYS = list(yaml.safe_load(coverage.FILE.read_text()))


@pytest.fixture(scope="module", params=SURVEYS)
def survey(request):
    return coverage.survey(str(request.param), STAGES)


def test_every_leaf_is_filled_or_says_why_not(survey):
    for heading, leaves in survey.leaves.items():
        for leaf in leaves:
            assert bool(leaf.recipes) != bool(leaf.gap), f"{survey.n}, {heading}, {leaf.name}: {leaf.recipes}"


def test_a_recipe_fills_leaves_by_what_it_is_made_of(tmp_path, monkeypatch):
    text = "policy: tiny\nenvironment: lookup\nstages:\n  - practise: {credit: turns, steps: 1}\n"
    text += "evidence: {against: {critic: {credit: gae}, same: {steps: 2}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(recipes, "files", lambda: {"mine": tmp_path / "mine.yaml"})
    monkeypatch.setattr(recipes, "shipped", lambda folder: tmp_path)
    algorithms = {leaf.name: leaf.recipes for leaf in coverage.survey("93", STAGES).leaves["reinforcement: algorithm"]}
    assert algorithms["step-level"] == ["mine"]  # not its arm of the same kind
    assert algorithms["actor-critic (PPO)"] == ["mine/critic"]
    assert algorithms["group-relative (GRPO)"] == []


def test_alternatives_and_what_must_come_together():
    arms = {"a": {"practise", "practise.credit=gae"}, "b": {"practise", "train"}, "c": {"train.credit=gae"}}
    leaf = coverage._leaf("x", ["practise & *.credit=gae", "train"], arms)
    assert leaf.recipes == ["a", "b"]


def test_the_matrix_crosses_two_headings():
    agentic = coverage.survey("125", STAGES)
    rows, columns = agentic.leaves["capability"], agentic.leaves["domain"]
    assert len(agentic.matrix) == len(rows) * len(columns)
    tools, search = (
        {leaf.name: leaf for leaf in leaves}[name]
        for leaves, name in ((rows, "tool use"), (columns, "search and research"))
    )
    assert set(agentic.matrix["tool use", "search and research"]) == set(tools.recipes) & set(search.recipes) != set()


def test_surveys_are_found_by_number_and_word():
    assert coverage.survey("landscape", STAGES).n == 125
    with pytest.raises(EtudeError, match="'43x' means no survey; there are: 93 A Survey"):
        coverage.survey("43x", STAGES)
    with pytest.raises(EtudeError, match="'survey' means more than one survey"):
        coverage.survey("survey", STAGES)


def different(a, b, path=""):
    """Paths at which two resolved recipes differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [p for key in a for p in different(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [p for i in range(len(a)) for p in different(a[i], b[i], f"{path}[{i}]")]
    return [] if a == b else [path]


@pytest.mark.exact(93)
@pytest.mark.parametrize(
    ("arm", "swapped"),
    [
        ("preference", {".stages[2].practise.credit", ".stages[2].practise.objective"}),
        ("actor-critic", {".stages[2].practise.credit", ".stages[2].practise.objective.clipped.value"}),
        ("step-level", {".stages[2].practise.credit"}),
        ("adapter", {".weights"}),
    ],
)
def test_swapping_a_branch_changes_that_part_alone(arm, swapped):
    recipe = recipes.load("llm-agent-optimization")
    of = {label: recipes.resolve(other, STAGES) for label, other in recipes.baselines(recipe).items()}
    assert set(different(recipes.resolve(recipe, STAGES), of[arm])) == swapped
