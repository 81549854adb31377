"""`etude import`, `etude export`: logs of other tools to trajectories and back."""

import argparse
from pathlib import Path

from etude.apps.cli.output import print_json
from etude.core.errors import EtudeError


def import_logs(args: argparse.Namespace) -> int:
    """Good rows into a store, bad ones into a quarantine file with the reason; exit 1 when no row was good."""
    from etude.trajectory.formats.base import import_files
    from etude.trajectory.store import Store

    missing = [path for path in args.paths if not Path(path).is_file()]
    if missing:
        raise EtudeError(f"no file {missing[0]!r} to import")
    quarantine = Path(args.quarantine or Path(args.to).parent / "quarantine.jsonl")
    counts = import_files(args.paths, Store(args.to), quarantine, format=args.format)
    if args.json:
        print_json(vars(counts) | {"store": args.to, "quarantine": str(quarantine)})
    else:
        print(f"{counts.good} good rows in {args.to}")
        if counts.quarantined:
            print(f"{counts.quarantined} bad rows in {quarantine}")
            for reason, count in counts.reasons.most_common(5):
                print(f"  {count:>6}  {reason}")
    return 0 if counts.good else 1


def export_logs(args: argparse.Namespace) -> int:
    """Every episode of a store as a row of another format; exit 1 when some could not be written in it."""
    from etude.trajectory.formats.base import export_file
    from etude.trajectory.store import Store

    place = Path(args.store)
    if not place.is_dir():
        raise EtudeError(
            f"no trajectory store at {args.store!r}; `etude import` makes one, and each run has `trajectories/`"
        )
    store = Store(place / "trajectories" if (place / "run.yaml").exists() else place)
    exported = export_file(store.read(), args.file, args.format)
    if args.json:
        refused = [vars(one) for one in exported.refused]
        print_json({"written": exported.written, "refused": refused, "file": args.file})
    else:
        print(f"{exported.written} episodes in {args.file}")
        for refused in exported.refused[:5]:
            print(f"  not {refused.id} episode {refused.episode}: {refused.reason}")
        if len(exported.refused) > 5:
            print(f"  … {len(exported.refused)} refused in all")
    return 1 if exported.refused else 0
