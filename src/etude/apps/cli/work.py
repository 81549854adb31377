"""Verbs that run something: `run`, `eval`, `preflight`, `evidence`, `compare`, `report`."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.apps.cli.install import provide
from etude.apps.cli.output import print_json
from etude.core import recipe as recipes
from etude.core import rundir
from etude.core.errors import EtudeError, RecipeError
from etude.training import distributed


def run(args: argparse.Namespace) -> int:
    """Run a recipe, or with --dry-run only check it and print it in full; --check makes the verdict the exit status."""
    from etude.apps.run import SCHEMA

    recipe = recipes.load(args.recipe, args.overrides)
    resolved = recipes.resolve(recipe, SCHEMA)
    if args.check and not resolved["evaluate"].get("tasks"):
        hint = "evaluates nothing, so --check has no verdict to end with; set evaluate.tasks"
        raise RecipeError(f"recipe {recipe.file.name!r} {hint}")
    if args.dry_run:
        return _dry_run(resolved, args.out, args.json)
    provide(resolved, install=args.install)
    from etude.apps.run import run as run_recipe

    with distributed.joined():
        result, rank = run_recipe(recipe, out=args.out), distributed.rank()
    if rank:
        return 0
    if args.json:
        print_json({"run": str(result.path), "report": result.report.to_json() if result.report else None})
    else:
        print(result.report or f"done, without evaluation: {result.path}")
    return result.report.exit_code if args.check else 0


def _dry_run(resolved: dict[str, Any], out: str | None, as_json: bool) -> int:
    from etude.apps.run import SCHEMA

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
    from etude.apps.run import SCHEMA
    from etude.apps.run import evaluate as evaluate_recipe

    source = Path(args.recipe)
    recipe = recipes.load(source / "run.yaml" if (source / "run.yaml").exists() else args.recipe, args.overrides)
    if not source.is_dir():
        provide(recipes.resolve(recipe, SCHEMA), install=args.install)
    with distributed.joined():
        result = evaluate_recipe(recipe, run=source if source.is_dir() else None, out=args.out)
        if distributed.rank() == 0:
            _print(result, args.json)
    return 0


def preflight(args: argparse.Namespace) -> int:
    """Check the samples that a recipe would train on. PreflightError refuses them."""
    from etude.apps.run import SCHEMA
    from etude.apps.run import preflight as check

    recipe = recipes.load(args.recipe, args.overrides)
    provide(recipes.resolve(recipe, SCHEMA), install=args.install)
    result = check(recipe, show=args.show)
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
    """Evaluated runs side by side, on the same tasks, in words and as a page."""
    from etude.evaluation.compare import compare as compare_runs
    from etude.evaluation.html import write_comparison

    found = compare_runs(args.runs, common=args.common)
    page = Path(args.html) if args.html else _beside(args.runs)
    try:
        write_comparison(found, page)
    except OSError as error:
        raise EtudeError(f"cannot write {str(page)!r}: {error.strerror}; name another place with --html FILE") from None
    if args.json:
        entries = [{**dataclasses.asdict(entry), "verdict": entry.verdict} for entry in found.entries]
        print_json({"entries": entries, "notes": found.notes, "page": str(page)})
    else:
        print(f"{found}\n{'report':8} {page}")
    return 0


def _beside(runs: Sequence[str]) -> Path:
    """compare.html in the folder that holds all runs; in this one where no single folder does."""
    folders = {os.path.dirname(os.path.abspath(run)) for run in runs}
    return Path(os.path.relpath(folders.pop()) if len(folders) == 1 else "", "compare.html")


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
