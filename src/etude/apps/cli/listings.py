"""`etude systems`, `etude parts`, `etude runs`: what there is."""

import argparse
import dataclasses
import inspect
import json
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from etude.apps import coverage as coverages
from etude.apps.cli.output import print_json, print_table
from etude.apps.stages import STAGES
from etude.core import catalogue
from etude.core import parts as shelf_parts
from etude.core.errors import EtudeError, suggest
from etude.core.parts import Argument, PartInfo
from etude.core.rundir import read_state, status


def systems(args: argparse.Namespace) -> int:
    """The catalogue, with the status that recipes and evidence files give."""
    every = catalogue.systems()
    rooms = sorted({system.room for system in every})
    if args.room and args.room not in rooms:
        raise EtudeError(f"no systems in room {args.room!r}; {suggest(args.room, rooms)}")
    chosen = [s for s in every if args.room in (None, s.room) and args.status in (None, s.status)]
    if args.json:
        print_json([dataclasses.asdict(system) for system in chosen])
        return 0
    print_table(
        ["n", "status", "room", "recipe", "system"],
        [(s.n, s.status, s.room, s.recipe or "-", s.short) for s in chosen],
    )
    counts = Counter(system.status for system in chosen)
    print(f"{len(chosen)} systems: " + ", ".join(f"{counts[s]} {s}" for s in ("works", "exact", "missing")))
    return 0


def coverage(args: argparse.Namespace) -> int:
    """A survey's leaves with the recipes that fill them, the matrix where it has one, and the gaps."""
    found = coverages.survey(args.survey, STAGES)
    if args.json:
        matrix = {row: {} for row, _ in found.matrix}
        for (row, column), names in found.matrix.items():
            matrix[row][column] = names
        print_json(dataclasses.asdict(found) | {"matrix": matrix})
        return 0
    works = {s.recipe for s in catalogue.systems() if s.status == "works"}
    print(f"{found.n}  {found.title}\n* not measured yet")
    for heading, leaves in found.leaves.items():
        print(f"\n{heading}")
        for leaf in leaves:
            own = ", ".join(name + "*" * (name.partition("/")[0] not in works) for name in leaf.recipes)
            text = f"{leaf.name}: {own or 'GAP: ' + leaf.gap}"
            print(textwrap.fill(text, 120, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False))
    if found.matrix:
        columns = [leaf.name for leaf in found.leaves[found.columns]]
        print()
        rows = [[len(found.matrix[leaf.name, c]) or "-" for c in columns] for leaf in found.leaves[found.rows]]
        names = [leaf.name for leaf in found.leaves[found.rows]]
        print_table(["recipes that are both", *columns], [[n, *row] for n, row in zip(names, rows, strict=True)])
    every = [leaf for leaves in found.leaves.values() for leaf in leaves]
    print(f"\n{sum(bool(leaf.recipes) for leaf in every)} of {len(every)} leaves are filled")
    return 0


def parts(args: argparse.Namespace) -> int:
    """All shelves, the parts of one, or one part with its paper and settings."""
    path: str | None = args.path
    shelves = [s for s in shelf_parts.SHELVES if path is None or s == path or s.startswith(path + "/")]
    if path is not None and not shelves:
        return _explain(path, args.json)
    found = {shelf: shelf_parts.find(shelf) for shelf in shelves}
    if args.json:
        print_json([_summary(info) for infos in found.values() for info in infos.values()])
    elif path is None:
        print_table(["shelf", "parts"], [(shelf, ", ".join(infos) or "-") for shelf, infos in found.items()])
    else:
        rows = [(info.path, info.title, info.citation) for infos in found.values() for info in infos.values()]
        print_table(["part", "what", "paper"], rows)
    return 0


def _summary(info: PartInfo) -> dict[str, Any]:
    return {"path": info.path, "title": info.title, "citation": info.citation, "arguments": info.arguments}


def _explain(path: str, as_json: bool) -> int:
    thing = shelf_parts.load(path)
    shelf, name = shelf_parts.shelf_of(path)
    info, settings = shelf_parts.find(shelf)[name], shelf_parts.schema(path)
    signature = f"{info.name}{inspect.signature(thing)}"
    module = sys.modules[thing.__module__]
    if as_json:
        described = [_setting(argument) for argument in settings.values()]
        more = {
            "signature": signature,
            "file": str(info.file),
            "paper": inspect.getdoc(module),
            "doc": inspect.getdoc(thing),
        }
        print_json(_summary(info) | more | {"settings": described})
        return 0
    print(f"{path}   {info.file}\n\n{inspect.getdoc(module) or ''}\n\n{signature}")
    doc = inspect.getdoc(thing) or ""
    print("\n".join(f"    {line}".rstrip() for line in doc.splitlines()))
    if settings:
        print("\nsettings")
        for argument in settings.values():
            default = "" if argument.required else f" = {argument.default!r}"
            print(
                f"    {argument.name}: {argument.annotation}{default}"
                + (f"   {argument.help}" if argument.help else "")
            )
    return 0


def _setting(argument: Argument) -> dict[str, Any]:
    described = {
        "name": argument.name,
        "type": argument.annotation,
        "required": argument.required,
        "help": argument.help,
    }
    return described if argument.required else described | {"default": argument.default}


def runs(args: argparse.Namespace) -> int:
    """Run directories, the latest first."""
    folder = Path(args.folder)
    found = sorted(folder.glob("*/run.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    rows = [_run(file.parent) for file in found]
    if args.json:
        print_json(rows)
    elif not rows:
        print(f"no runs in {folder}; start one with  etude run quickstart")
    else:
        print_table(["run", "status", "verdict"], [(row["path"], row["status"], row["verdict"] or "-") for row in rows])
    return 0


def _run(path: Path) -> dict[str, Any]:
    report = path / "report.json"
    verdict = json.loads(report.read_text(encoding="utf-8")).get("verdict") if report.exists() else None
    state = read_state(path)
    at = {key: state.get(key) for key in ("stage", "step")}
    return {"path": str(path), "status": status(path), **at, "verdict": verdict}
