"""The published systems, and how far each is on the way to "works".

Nothing claims a status: it is computed from what is there.

exact     its recipe exists, and every test marked `@pytest.mark.exact(n)` passed when `evidence/exact.json` was written
effect    `evidence/<recipe>.json` holds at least three seeds, and figures with finite intervals
works     both; only the first is "exact"; anything else is "missing"
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from etude.core import recipe as recipes
from etude.core.errors import EtudeError, RecipeError

SEEDS = 3
"""Fewest seeds from which an effect counts as measured."""


@dataclass(frozen=True)
class System:
    """One published system as etude knows it."""

    n: int
    title: str
    short: str
    room: str
    link: str | None
    status: str
    """`works`, `exact` or `missing`."""
    recipe: str | None
    """Its recipe's name; the first in alphabetical order where several reproduce it."""


def systems(recipes_dir: Path | None = None, evidence_dir: Path | None = None) -> list[System]:
    """All systems in the order of their numbers, with the status that recipes and evidence files give them.

    Raises RecipeError for a recipe that is not YAML or names a system that is not listed, EtudeError for an evidence
    file that is not JSON.
    """
    recipes_dir = recipes_dir or recipes.shipped("recipes")
    evidence_dir = evidence_dir or recipes.shipped("evidence")
    listed = entries()
    recipes_of: dict[int, list[str]] = {}
    for file in sorted(recipes_dir.rglob("*.yaml")):
        written = recipes.read(file)
        n = written.get("system") if isinstance(written, dict) else None
        if n is None:
            continue
        if n not in listed:
            raise RecipeError(f"recipe {file.name!r}, system: no system {n!r}; they are numbered 1 to {max(listed)}")
        recipes_of.setdefault(n, []).append(file.stem)
    exact = _read(evidence_dir / "exact.json")
    found = []
    for n, entry in listed.items():
        names = sorted(recipes_of.get(n, []))
        is_exact = bool(names) and exact.get(str(n), {}).get("passed") is True
        has_effect = any(shows_effect(_read(evidence_dir / f"{name}.json")) for name in names)
        status = ("works" if has_effect else "exact") if is_exact else "missing"
        found.append(System(**entry, status=status, recipe=names[0] if names else None))
    return found


def entries() -> dict[int, dict[str, Any]]:
    """The catalogue itself: number -> `{n, title, short, room, link}`."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    listed = yaml.load((Path(__file__).parent / "systems.yaml").read_text(encoding="utf-8"), loader)
    return {entry["n"]: entry for entry in listed}


def shows_effect(evidence: dict[str, Any]) -> bool:
    """Whether an evidence file measures an effect, good or bad.

    It holds `seeds`, at least three different ones, and `figures`: name -> `{value, interval: [low, high], ...}`.
    """
    seeds, figures = evidence.get("seeds", []), evidence.get("figures", {})
    if not isinstance(seeds, list) or len(set(seeds)) < SEEDS or not isinstance(figures, dict) or not figures:
        return False
    return all(_is_interval(figure) for figure in figures.values())


def _is_interval(figure: Any) -> bool:
    if not isinstance(figure, dict) or not isinstance(figure.get("interval"), list) or len(figure["interval"]) != 2:
        return False
    numbers = [figure.get("value"), *figure["interval"]]
    return all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers) and numbers[1] <= numbers[2]


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EtudeError(f"evidence file {file}: {error}\nwrite it again with `etude evidence {file.stem}`") from None
