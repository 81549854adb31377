"""`etude env`: which worlds there are, what is known of them, whether one keeps its word, and one for others."""

import argparse
import asyncio
import sys
from typing import Any

from etude.apps import worlds
from etude.apps.cli.output import print_json, print_table
from etude.apps.cli.serve import serve
from etude.core import parts
from etude.core.errors import EtudeError
from etude.core.progress import progress
from etude.evaluation.conformance import CHECKS, Report

SHOWN = 3  # problems of one check


def env(args: argparse.Namespace) -> int:
    """`list`, `check` with names, `serve` with one, or `references` of one."""
    if args.action == "serve":
        return serve(args)
    if args.action == "references":
        return _references(args)
    if args.action == "list":
        if args.worlds:
            raise EtudeError(f"env list takes no name (given {args.worlds[0]!r}); `etude env check` does")
        rows = worlds.worlds()
        if args.json:
            print_json(rows)
        else:
            print_table(HEAD, [table_row(row) for row in rows])
        return 0
    names = list(args.worlds)
    for name in parts.find("environments") if args.all else ():
        if settings := worlds.wants(name):
            print(f"{name} wants {', '.join(settings)}: etude env check '{{{name}: {{…}}}}'", file=sys.stderr)
        elif command := worlds.install(name):
            print(f"{name} is not installed; run:  {command}", file=sys.stderr)
        else:
            names.append(name)
    if not names:
        raise EtudeError("which world? give a name, path/to/file.py:NAME, or --all")
    reports = {name: _check(name, args) for name in dict.fromkeys(names)}
    if args.json:
        print_json([worlds.to_json(name, report) for name, report in reports.items()])
    return 0 if all(report.passed for report in reports.values()) else 1


def _references(args: argparse.Namespace) -> int:
    from etude.evaluation import normalise, plays

    if len(args.worlds) != 1:
        raise EtudeError(f"env references takes one world (given {len(args.worlds)}); `etude env list` shows them")
    world = plays.build(args.worlds[0])
    found = asyncio.run(normalise.measure(world, worlds.reference_tasks(world)))
    file = normalise.write(world.name, found)
    if args.json:
        print_json(found)
    else:
        rows = [[d, f"{r['random']:.3f}", f"{r['oracle']:.3f}", str(r["episodes"])] for d, r in found.items()]
        print_table(("domain", "random", "oracle", "episodes"), rows)
        print(f"written to {file}")
    return 0


def _check(name: str, args: argparse.Namespace) -> Report:
    with progress(len(CHECKS) + bool(args.policy), f"check {name}", "checks") as advance:
        report = asyncio.run(
            worlds.check(
                name,
                episodes=args.episodes,
                at_once=args.at_once,
                policy=args.policy or "",
                tasks=args.tasks,
                on_check=lambda check: advance(),
            )
        )
    if not args.json:
        _print(name, report)
    if args.write:
        file = worlds.write(name, report)
        if not args.json:
            print(f"  written to {file}")
    return report


def _print(name: str, report: Report) -> None:
    figures = report.figures
    print(f"{name}: {', '.join(f'{split} {count}' for split, count in figures['tasks'].items()) or 'no tasks'}")
    for check, outcome in report.checks.items():
        told = [outcome.skipped] if outcome.skipped else []
        told += outcome.problems[:SHOWN]
        told += [f"… and {len(outcome.problems) - SHOWN} more"] if len(outcome.problems) > SHOWN else []
        told += [f"({note})" for note in outcome.notes]
        for line, text in enumerate(told or [""]):
            print(f"  {outcome.word if line == 0 else '':8}{check if line == 0 else '':12}{text}".rstrip())
    scores = {what: figures[what] for what in ("nothing", "random", "gold") if what in figures}
    for what, one in (scores | figures.get("models", {})).items():
        if one["mean"] is not None:
            print(f"  {what:20}{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}], {one['episodes']} episodes")
    if "step_ms" in figures:
        speed = f"{figures['step_ms']:.2g} ms a step (95%: {figures['step_ms_95']:.2g})"
        print(f"  {'speed':20}{speed}, {figures['reset_ms']:.2g} ms a reset")
    if "memory_mb" in figures:
        print(f"  {'memory':20}{figures['memory_mb']:+.1f} MB over {figures['memory_episodes']} episodes")


HEAD = ("world", "installed", "train", "dev", "test", "nothing", "random", "gold", "model", "ms/step")


def table_row(row: dict[str, Any]) -> list[str]:
    """What `etude env list` shows of a world; `-` for what has not been measured."""
    counts = [str(row.get("tasks", {}).get(split, "-")) for split in ("train", "dev", "test")]
    scores = [mean(row.get(what)) for what in ("nothing", "random", "gold")]
    models = ", ".join(f"{name} {mean(one)}" for name, one in row.get("models", {}).items()) or "-"
    step = f"{row['step_ms']:.2g}" if row.get("step_ms") is not None else "-"
    return [row["world"], row["install"] or "yes", *counts, *scores, models, step]


def mean(score: dict[str, Any] | None, which: str = "mean") -> str:
    """A score, or a bound of its interval, in two digits."""
    return "-" if score is None or score[which] is None else f"{score[which]:.2f}"
