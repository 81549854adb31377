"""Runs on one page: what each gained, what it lost, what it cost.

Gain is the difference of the primary success; loss is the worst loss row in units of its tolerance (1 is where it
starts to count). Gains can only be compared on the same tasks: runs that were measured on different ones are refused,
unless the tasks that all of them share are asked for, and then every gain, interval and verdict is computed anew on
those."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.core.errors import EtudeError
from etude.evaluation.report import Report, Row, amount, change, cost_total, duration, load_report, row_of, verdict
from etude.evaluation.statistics import Figure


@dataclass(frozen=True)
class Entry:
    """One run among others."""

    name: str
    directory: str
    rows: list[Row]
    """As in its report; gain rows are over the tasks that are compared."""
    cost: dict[str, float]
    """Amounts over all stages."""

    @property
    def gain(self) -> Row:
        """The primary success."""
        return self.rows[0]

    @property
    def worst(self) -> Row | None:
        """The loss row furthest beyond its tolerance; None without losses."""
        return max((row for row in self.rows if row.kind == "loss" and row.tolerance), key=in_tolerances, default=None)

    @property
    def verdict(self) -> str:
        return verdict(self.rows)


@dataclass(frozen=True)
class Comparison:
    """Several runs, in the order given."""

    entries: list[Entry]
    notes: list[str]

    def __str__(self) -> str:
        table = [("run", "verdict", "success", "change", "worst loss", "time", "trained", "sampled")]
        for entry in self.entries:
            worst, cost = entry.worst, entry.cost
            table.append(
                (
                    entry.name,
                    entry.verdict,
                    *change(entry.gain),
                    f"{worst.name} {in_tolerances(worst):+.1f}x" if worst else "-",
                    duration(cost["seconds"]) if "seconds" in cost else "-",
                    amount(cost["tokens_trained"]) if "tokens_trained" in cost else "-",
                    amount(cost["tokens_sampled"]) if "tokens_sampled" in cost else "-",
                )
            )
        width = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
        lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, width, strict=True)).rstrip() for row in table]
        gain = self.entries[0].gain
        lines.append(f"on {gain.items} {gain.noun}; worst loss in multiples of its tolerance, + is worse")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def in_tolerances(row: Row) -> float:
    """How much worse a loss row became, in units of its tolerance; 1 is where it starts to count."""
    return row.worsening / row.tolerance if row.tolerance else 0.0


def compare(run_directories: Sequence[str | Path], *, common: bool = False) -> Comparison:
    """Read the report.json of each run and put them side by side.

    common: compare on the tasks that all runs share, where they were not measured on the same ones.
    Raises EtudeError, naming a task, when the runs' held-out tasks differ and `common` is not set, or they share none;
    EtudeError when success means another threshold; FormatError for a directory without a readable report.
    """
    if not run_directories:
        raise EtudeError("no runs to compare; give the directories of at least one")
    reports = [load_report(directory) for directory in run_directories]
    thresholds = {report.settings.get("threshold") for report in reports}
    if len(thresholds) > 1:
        raise EtudeError(
            f"success means another reward threshold in each run ({sorted(map(str, thresholds))}); evaluate them alike"
        )
    shared, notes = _shared(reports, [str(d) for d in run_directories], common)
    entries = []
    for directory, report in zip(run_directories, reports, strict=True):
        rows = [_on(report, row, shared[row.name]) if row.name in shared else row for row in report.rows]
        entries.append(Entry(report.name, str(directory), rows, cost_total(report.cost)))
    return Comparison(entries, notes)


def _shared(reports: Sequence[Report], names: Sequence[str], common: bool) -> tuple[dict[str, list[str]], list[str]]:
    """The tasks to compare each gain row on, where the runs do not agree by themselves."""
    shared, notes = {}, []
    rows = dict.fromkeys(row.name for report in reports for row in report.rows if row.kind == "gain")
    for name in rows:
        having = [
            (report.figures[name]["before"].items, run)
            for report, run in zip(reports, names, strict=True)
            if name in report.figures
        ]
        first, first_run = having[0]
        other = next(((items, run) for items, run in having if items.keys() != first.keys()), None)
        if other is None:
            continue
        every = set.intersection(*(set(items) for items, _ in having))
        ids = [task for task in first if task in every]
        task = min(first.keys() ^ other[0].keys())
        if not common or not ids:
            what = "they share none" if not ids else f"they share {len(ids)}; --common compares on those"
            raise EtudeError(
                f"{name}: {first_run} was measured on {len(first)} tasks, {other[1]} on {len(other[0])}, and not "
                f"on the same ones (task {task!r} is on one side only); {what}"
            )
        shared[name] = ids
        sizes = ", ".join(str(len(items)) for items, _ in having)
        notes.append(f"{name} is compared on the {len(ids)} tasks that all runs share, of {sizes}")
    return shared, notes


def _on(report: Report, row: Row, ids: Sequence[str]) -> Row:
    before, after = (
        Figure(**{**vars(figure), "items": {i: figure.items[i] for i in ids}})
        for figure in (report.figures[row.name]["before"], report.figures[row.name]["after"])
    )
    settings = {"level": report.settings["level"], "seed": report.settings["seed"]}
    return row_of(row.name, row.kind, row.noun, before, after, row.tolerance, **settings)
