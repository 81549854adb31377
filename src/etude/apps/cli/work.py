"""Verbs that run something: `run`, `eval`, `preflight`, `evidence`, `compare`, `report`."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from etude.apps.cli.output import print_json
from etude.core import recipe as recipes
from etude.core import rundir
from etude.core.errors import RecipeError


def run(args: argparse.Namespace) -> int:
    """Run a recipe, or with --dry-run only check it and print it in full."""
    recipe = recipes.load(args.recipe, args.overrides)
    if args.dry_run:
        return _dry_run(recipe, args.out, args.json)
    if args.install:
        from etude.apps.cli.models import install_missing

        install_missing(recipe)
    from etude.apps.run import run as run_recipe

    result = run_recipe(recipe, out=args.out)
    if args.json:
        print_json({"run": str(result.path), "report": result.report.to_json() if result.report else None})
    else:
        print(result.report or f"done, without evaluation: {result.path}")
    return 0


def _dry_run(recipe: recipes.Recipe, out: str | None, as_json: bool) -> int:
    from etude.apps.run import SCHEMA

    resolved = recipes.resolve(recipe, SCHEMA)
    place = out or f"runs/{rundir.run_id(resolved)}"
    names = [next(iter(stage)) for stage in resolved["stages"]]
    if as_json:
        print_json({"run": place, "stages": names, "recipe": resolved})
        return 0
    print(recipes.dump(resolved), end="")
    print(f"# would run in {place}")
    for i, name in enumerate(names):
        does = (SCHEMA[name].__doc__ or "").strip().split("\n")[0]
        print(f"#   {i} {name}" + (f": {does}" if does else ""))
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Measure the policy of a recipe, or what a run directory made of it."""
    from etude.apps.run import evaluate as evaluate_recipe

    source = Path(args.recipe)
    recipe = recipes.load(source / "run.yaml" if (source / "run.yaml").exists() else args.recipe, args.overrides)
    result = evaluate_recipe(recipe, run=source if source.is_dir() else None, out=args.out)
    _print(result, args.json)
    return 0


def preflight(args: argparse.Namespace) -> int:
    """Check the samples that a recipe would train on. PreflightError refuses them."""
    from etude.apps.run import preflight as check

    result = check(recipes.load(args.recipe, args.overrides), show=args.show)
    _print(result, args.json)
    return 0


def evidence(args: argparse.Namespace) -> int:
    """Run the small study of a recipe, or of all recipes that describe one, and write `evidence/NAME.json`."""
    from etude.apps.evidence import run_evidence

    if bool(args.recipe) == args.all:
        raise RecipeError("name a recipe, or say --all")
    names = [n for n in recipes.files() if recipes.load(n).data["evidence"]] if args.all else [args.recipe]
    for name in names:
        _print(run_evidence(name), args.json)
    return 0


def compare(args: argparse.Namespace) -> int:
    """Evaluated runs side by side, on the same tasks."""
    from etude.evaluation.compare import compare as compare_runs

    found = compare_runs(args.runs, common=args.common)
    if args.json:
        entries = [{**dataclasses.asdict(entry), "verdict": entry.verdict} for entry in found.entries]
        print_json({"entries": entries, "notes": found.notes})
    else:
        print(found)
    return 0


def report(args: argparse.Namespace) -> int:
    """What a run directory's evaluation said; the exit status is the verdict's."""
    from etude.evaluation.report import load_report

    found = load_report(args.run)
    _print(found, args.json)
    return found.exit_code


def _print(result: Any, as_json: bool) -> None:
    """What a verb found: its text, or its `to_json()`."""
    if as_json:
        print_json(result.to_json() if hasattr(result, "to_json") else result)
    else:
        print(result)
