"""`etude coverage SURVEY`: a survey's taxonomy, and the recipes that fill each leaf of it.

Nothing says that it covers a leaf: `surveys.yaml` gives each leaf patterns, and a recipe fills it where its features
match. Features are read off the recipe as it is run, defaults included, and off each arm of its study:

    tag=planning                     a recipe's own word, where no part shows it
    environment=desk                 a top-level part; with its settings: environment=desk.difficulty=1
    practise                         a stage
    practise.credit=group            an option of a stage; with the part's settings: train.weights=lora.rank=8
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from etude.core import recipe as recipes
from etude.core.catalogue import entries
from etude.core.errors import EtudeError
from etude.core.recipe import PARTS, Recipe

FILE = Path(__file__).parent / "surveys.yaml"


@dataclass
class Leaf:
    """One thing that a survey names."""

    name: str
    patterns: list[str]
    """Alternatives; ` & ` joins what a recipe must have together."""
    gap: str = ""
    """Why nothing fills it."""
    recipes: list[str] = field(default_factory=list[str])
    """`name`, or `name/arm` where an arm of its study fills it and the recipe itself does not."""


@dataclass
class Survey:
    """A published survey's taxonomy, filled in."""

    n: int
    title: str
    leaves: dict[str, list[Leaf]]
    """By the heading that they stand under."""
    rows: str = ""
    columns: str = ""
    """Two headings that are crossed to a matrix, where there is one."""

    @property
    def matrix(self) -> dict[tuple[str, str], list[str]]:
        """(row, column) -> recipes that fill both."""
        rows, columns = self.leaves.get(self.rows, []), self.leaves.get(self.columns, [])
        return {(r.name, c.name): [name for name in r.recipes if name in c.recipes] for r in rows for c in columns}


def survey(name: str, stages: recipes.Stages) -> Survey:
    """A survey by its number or a word of its title, with the recipes that fill it.

    Raises EtudeError where no survey or more than one is meant.
    """
    listed, catalogue = yaml.safe_load(FILE.read_text(encoding="utf-8")), entries()
    titles = {n: catalogue[n]["title"] for n in listed}
    meant = [
        n for n, title in titles.items() if name == str(n) or (not name.isdigit() and name.lower() in title.lower())
    ]
    if len(meant) != 1:
        known = "; ".join(f"{n} {title}" for n, title in titles.items())
        raise EtudeError(f"{name!r} means {'no' if not meant else 'more than one'} survey; there are: {known}")
    written = listed[meant[0]]
    arms = dict(_arms(stages))
    leaves = {
        heading: [_leaf(name, {} if rule is None else rule, arms) for name, rule in rules.items()]
        for heading, rules in written["leaves"].items()
    }
    return Survey(meant[0], titles[meant[0]], leaves, *written.get("matrix", []))


def features(data: Mapping[str, Any]) -> set[str]:
    """What a resolved recipe is made of.

    >>> recipe = {"tags": ["planning"], "stages": [{"practise": {"credit": {"turns": {"gamma": 0.5}}}}]}
    >>> sorted(features(recipe))
    ['practise', 'practise.credit=turns', 'practise.credit=turns.gamma=0.5', 'tag=planning']
    """
    found = {f"tag={tag}" for tag in data.get("tags", [])}
    for key in PARTS:
        if key in data:
            found |= set(_values(key, data[key]))
    for stage in data["stages"]:
        for name, options in stage.items():
            found.add(name)
            for option, value in options.items():
                found |= set(_values(f"{name}.{option}", value))
    return found


def _values(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _values(place, item)
    elif isinstance(value, dict):
        for name, settings in value.items():
            yield f"{place}={name}"
            for setting, inner in (settings if isinstance(settings, dict) else {}).items():
                yield from _values(f"{place}={name}.{setting}", inner)
    else:
        yield f"{place}={value}"


def _arms(stages: recipes.Stages) -> Iterator[tuple[str, set[str]]]:
    for name in sorted(recipes.files()):
        recipe = recipes.load(name)
        yield recipe.name, _features(recipe, stages)
        if recipe.data["evidence"].get("against"):
            for label, arm in recipes.baselines(recipe).items():
                yield f"{recipe.name}/{label}", _features(arm, stages)


def _features(recipe: Recipe, stages: recipes.Stages) -> set[str]:
    return features(recipes.resolve(recipe, stages))


def _leaf(name: str, rule: str | Sequence[str] | Mapping[str, str], arms: Mapping[str, set[str]]) -> Leaf:
    if isinstance(rule, Mapping):
        return Leaf(name, [], rule["gap"])
    patterns = [rule] if isinstance(rule, str) else list(rule)
    filled = [arm for arm, own in arms.items() if any(_matches(pattern, own) for pattern in patterns)]
    return Leaf(
        name, patterns, recipes=[arm for arm in filled if arm.partition("/")[0] not in filled or "/" not in arm]
    )


def _matches(pattern: str, own: set[str]) -> bool:
    return all(any(fnmatchcase(feature, part) for feature in own) for part in pattern.split(" & "))
