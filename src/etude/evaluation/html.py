"""report.html and the comparison page: one file each, which opens offline and loads nothing.

Everything that a model, a tool or a task said is escaped (jinja2 with autoescape), and the page's content policy
forbids scripts and outside resources.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from etude.evaluation import charts
from etude.evaluation.compare import Comparison, in_tolerances
from etude.evaluation.losses import refused
from etude.evaluation.report import Report, Row, amount, bounds, cost_line, cost_total, duration, number
from etude.evaluation.statistics import mean_interval

SECTIONS = {
    "gain": "Gain",
    "effort": "Effort",
    "loss": "Loss",
    "detail": "Also measured",
}
EXPLAINED = {
    "success": "share of attempts that solved their held-out task",
    "turns": "mean turns of an episode",
    "tokens": "mean sampled tokens of an episode",
    "KL": "from the base model, on the base's own text, nats per token",
    "KL k3": "the same, by a noisier-tailed estimator that is never negative",
    "task KL": "from the base model, on its own episodes of the task; foretells forgetting (RL's Razor)",
    "perplexity": "of short everyday paragraphs",
    "general": "easy questions, four options each",
    "calibration": "expected calibration error on these questions",
    "episodes' calibration": "error of the sampled tokens' confidence against success",
    "benign refused": "ordinary requests that were refused",
    "harmful refused": "harmful requests that were refused; higher is better",
    "diversity": "mean distance of the words of four answers to one prompt",
    "distinct-2": "share of word pairs that differ in these answers",
}
CURVES_FIRST = ("reward", "success", "score", "loss", "kl", "entropy", "grad_norm", "lr")
CURVES_PER_STAGE = 9
COMPARED_COST = ("seconds", "tokens_sampled", "tokens_trained", "flops", "peak_memory_bytes")
COST_TITLES: dict[str, str] = {
    "seconds": "time",
    "tokens_sampled": "tokens sampled",
    "tokens_trained": "tokens trained",
    "tokens_prefilled": "tokens prefilled",
    "flops": "compute",
    "peak_memory_bytes": "peak memory",
}


def write_report(report: Report, directory: str | Path) -> Path:
    """Write report.json and report.html into the directory; returns the path of the page."""
    page = Path(directory) / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps(_finite(report.to_json()), ensure_ascii=False, indent=1, allow_nan=False)
    (page.parent / "report.json").write_text(told + "\n", encoding="utf-8")
    page.write_text(render_report(report), encoding="utf-8")
    return page


def write_comparison(comparison: Comparison, page: str | Path) -> Path:
    """Write the comparison page; returns its path."""
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_comparison(comparison), encoding="utf-8")
    return page


def render_report(report: Report) -> str:
    """The page of one run."""
    return _page(
        "report.html.j2",
        report=report,
        headline=_headline(report),
        sections=_sections(report.rows),
        bars=_bars(report),
        curves=_curves(report.curves),
        cost=_cost(report),
        examples=[_side_by_side(example) for example in report.examples],
        refusals=_refusals(report),
        failures=sorted(
            {key for c in report.counts.values() for side in ("before", "after") for key in c[side]["failures"]}
        ),
    )


def render_comparison(comparison: Comparison) -> str:
    """The page of several runs."""
    points, rows = [], []
    for entry in comparison.entries:
        gain, worst, seconds = entry.gain, entry.worst, entry.cost.get("seconds", 0.0)
        low, high = (gain.difference if bound is None else bound for bound in (gain.low, gain.high))
        loss = in_tolerances(worst) if worst else 0.0
        told = f"{entry.name}: {entry.verdict}, {number(gain.difference, gain, sign=True)} points, loss {loss:.1f}"
        points.append((100 * gain.difference, 100 * low, 100 * high, loss, seconds, _style(entry.verdict), told))
        cost = {COST_TITLES[key]: _amount(key, entry.cost[key]) for key in COMPARED_COST if key in entry.cost}
        rows.append({"entry": entry, "gain": _cells(gain), "worst": worst, "loss": loss, "cost": cost})
    names = dict.fromkeys(row.name for entry in comparison.entries for row in entry.rows)
    by_name = [{row.name: row for row in entry.rows} for entry in comparison.entries]
    table = [(name, [_cells(found[name]) if name in found else None for found in by_name]) for name in names]
    return _page(
        "compare.html.j2",
        comparison=comparison,
        plot=charts.scatter(points),
        rows=rows,
        table=table,
        explained=EXPLAINED,
        costs=[title for title in COST_TITLES.values() if any(title in row["cost"] for row in rows)],
    )


def _page(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = _style
    return environment.get_template(template).render(**context)


def _style(label: str) -> str:
    """The colour class of a verdict or a row's label."""
    good, bad, doubtful = ("better",), ("lost", "worse"), ("unsure", "narrower")
    return "good" if label in good else "bad" if label in bad else "doubtful" if label in doubtful else "plain"


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: a curve that diverged is written as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


# -- the table of rows ---------------------------------------------------------------------------------------------


def _cells(row: Row) -> dict[str, Any]:
    percent = "%" if row.unit == "share" else ""
    low, high = bounds(row)
    return {
        "row": row,
        "before": f"{number(row.before, row)}{percent}",
        "after": f"{number(row.after, row)}{percent}",
        "difference": _minus(number(row.difference, row, sign=True)),
        "interval": _minus(f"{low} to {high}"),
        "explained": EXPLAINED.get(row.name, ""),
    }


def _minus(words: str) -> str:
    return words.replace("-", "−")


def _sections(rows: Sequence[Row]) -> list[dict[str, Any]]:
    sections = []
    for kind, title in SECTIONS.items():
        chosen = [row for row in rows if row.kind == kind]
        widest = max((abs(x) for row in chosen for x in (row.low or 0, row.high or 0, row.difference)), default=0.0)
        cells = [_cells(row) | {"plot": _plot(row, widest)} for row in chosen]
        if cells:
            sections.append({"title": title, "kind": kind, "rows": cells})
    return sections


def _plot(row: Row, widest: float) -> Markup:
    """Gain rows share an axis of points; a loss row's axis is three tolerances; others fill their own."""
    own = max(abs(row.low or 0), abs(row.high or 0), abs(row.difference)) or 1.0
    extent = max(widest, 0.1) if row.kind == "gain" else 3 * row.tolerance if row.tolerance else own
    sign = 1 if row.higher_is_better else -1
    ends = sorted(sign * bound for bound in (row.low, row.high) if bound is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    told = f"{row.name}: {number(row.difference, row, sign=True)}, interval {' to '.join(bounds(row))}, {row.label}"
    tolerance = row.tolerance if row.kind == "loss" else None
    return charts.interval(
        sign * row.difference, low, high, extent=extent, style=_style(row.label), tolerance=tolerance, label=told
    )


def _headline(report: Report) -> list[dict[str, str]]:
    """The few numbers at the top."""
    cells = [_cells(row) for row in report.rows if row.kind == "gain" and "pass@" not in row.name][:2]
    boxes = [
        {
            "title": c["row"].name if n else f"{c['row'].name}, {c['row'].noun}",
            "value": f"{c['before']} → {c['after']}",
            "note": f"{c['difference']} points, {c['interval']}",
        }
        for n, c in enumerate(cells)
    ]
    judged = [row for row in report.rows if row.kind == "loss"]
    if judged:
        lost = [row.name for row in judged if row.label == "lost"]
        boxes.append(
            {
                "title": "lost",
                "value": f"{len(lost)} of {len(judged)}",
                "note": ", ".join(lost) or "all within tolerance",
            }
        )
    if report.cost:
        first, *rest = cost_line(report.cost).split(", ")
        boxes.append({"title": "cost", "value": first, "note": ", ".join(rest)})
    return boxes


def _bars(report: Report) -> Markup | None:
    rows = []
    level, seed = report.settings.get("level", 0.95), report.settings.get("seed", 0)
    for row in report.rows:
        if row.kind != "gain":
            continue
        group = []
        for side in ("before", "after"):
            figure = report.figures[row.name][side]
            value = mean_interval(figure.rows_NK(list(figure.items))[:, 0], level=level, seed=seed)
            low, high = (value.mean if math.isnan(x) else x for x in (value.low, value.high))
            group.append((side, value.mean, low, high))
        set_name = next(iter(report.counts), "") if row.name == "success" else row.name
        floor = report.counts.get(set_name, {}).get("floor")
        rows.append((row.name, group, floor))
    return charts.bars(rows) if rows else None


# -- curves, cost, episodes, answers -------------------------------------------------------------------------------


def _curves(metrics: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, Markup]]]:
    """Stage -> (figure, chart), the figures that people look for first."""
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for position, row in enumerate(metrics):
        step = row.get("step", position)
        for key, value in row.items():
            number_like = isinstance(value, (int, float)) and not isinstance(value, bool)
            if key not in ("step", "stage") and number_like and math.isfinite(value):
                series.setdefault(str(row.get("stage", "")), {}).setdefault(key, []).append((float(step), float(value)))
    drawn = {}
    for stage, figures in series.items():
        names = [n for n in CURVES_FIRST if n in figures] + [n for n in figures if n not in CURVES_FIRST]
        drawn[stage] = [(name, charts.curve(figures[name], f"{stage} {name}")) for name in names[:CURVES_PER_STAGE]]
    return drawn


def _amount(key: str, value: float) -> str:
    if key == "seconds":
        return duration(value)
    return amount(value, {"flops": "FLOP", "peak_memory_bytes": "B"}.get(key, ""))


def _cost(report: Report) -> dict[str, Any]:
    total = cost_total(report.cost)
    rows = [
        {
            "stage": stage,
            "cells": [_amount(key, amounts[key]) if amounts.get(key) is not None else "–" for key in total],
            "share": amounts.get("seconds", 0.0) / total["seconds"] if total.get("seconds") else 0.0,
        }
        for stage, amounts in report.cost.items()
    ]
    return {
        "titles": [COST_TITLES[key] for key in total],
        "rows": rows,
        "total": [_amount(k, v) for k, v in total.items()],
    }


def _side_by_side(example: dict[str, Any]) -> dict[str, Any]:
    """Messages that both episodes begin with are shown once."""
    before, after = example["before"]["messages"], example["after"]["messages"]
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    return {**example, "shared": before[:shared], "rest": {"before": before[shared:], "after": after[shared:]}}


def _refusals(report: Report) -> list[dict[str, str]]:
    """Requests that were refused on one side only."""
    return [
        {"request": request, **{side: said[side][0] for side in ("before", "after")}}
        for request, said in report.answers.items()
        if len(said["before"]) == len(said["after"]) == 1 and refused(said["before"][0]) != refused(said["after"][0])
    ]
