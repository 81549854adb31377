"""The small study behind a recipe: it and its baselines, over seeds, at equal budget; what came out, as it came out.

    evidence:
      against: {sft: {objective: likelihood}, half: {objective: {dft: {gamma: 0.5}}}}
      measure: [success, new domains, {success: {difficulty: [3, 4]}}, perplexity]
      seeds: 3

Every arm is run with every seed in `runs/evidence`, where finished runs are found again. A measure is a row of the
report after practice, one of MEASURES (among them the rates of `evaluation.confusion`), `{row: {key: values}}`, the row
on those tasks alone whose meta holds such a value, or `{difference: [one, other]}` of two of these. A figure is the
difference recipe - arm of one measure; the arm `base` is the policy before practice.

Its interval comes from a bootstrap that draws seeds and items anew, each with replacement and both crossed (Owen 2007,
"The pigeonhole bootstrap", arXiv:0712.1111); with three seeds it is rather too narrow. A study that does not compare
recipes names a module of etude instead, whose function `study(seeds)` gives `figures` and `arms`.
"""

import datetime
import importlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etude.apps import run as runs
from etude.core import parts
from etude.core import recipe as recipes
from etude.core.errors import EtudeError, RecipeError, suggest
from etude.core.recipe import Recipe
from etude.core.rundir import atomic_write, run_id, status
from etude.evaluation.confusion import RATES, parts_of
from etude.evaluation.report import Report, load_report
from etude.evaluation.statistics import STATISTICS, Figure, Interval, difference
from etude.trajectory import Episode, Trajectory
from etude.trajectory.store import Store

FOLDER = Path("runs") / "evidence"
COST = ("tokens_trained", "tokens_sampled", "seconds")
VERDICTS = {1: "effect shown", 0: "null", -1: "negative"}


def settings(
    *,
    against: dict | None = None,
    measure: str | list = "success",
    seeds: int = 3,
    minutes: float = 3,
    study: str = "",
) -> None:
    """What a recipe may say under `evidence`.

    against: changes that make the baseline, or label -> changes. measure: one or several; the first decides.
    seeds: how many, from 0. minutes: what the study takes on two cores. study: module with a `study` of its own.
    """


# -- measures that are read from the episodes -------------------------------------------------------------------------


def invalid(trajectory: Trajectory, episode: Episode) -> tuple[float, float]:
    """Answers with a malformed call or one that the world refused, and all answers."""
    wrong: dict[int, bool] = {}
    answer = -1
    for n in trajectory.path(episode.leaf):
        node, message = trajectory.nodes[n], trajectory.messages[trajectory.nodes[n].message]
        if node.sampled:
            answer, wrong[n] = n, "malformed" in node.scores
        elif message.role == "tool" and message.content.startswith("error:"):
            wrong[answer] = True
    return sum(wrong.values()), max(1, len(wrong))


def prompt(trajectory: Trajectory, episode: Episode) -> tuple[float, float]:
    """Tokens of context that were read and not sampled, and 1."""
    nodes = [trajectory.nodes[n] for n in trajectory.path(episode.leaf)]
    sampled = sum(int(node.sampled_T.sum()) for node in nodes if node.sampled_T is not None)
    return sum(len(node.ids_T) for node in nodes if node.ids_T is not None) - sampled, 1


def shortfall(trajectory: Trajectory, episode: Episode) -> tuple[float, float]:
    """How far the reward stays below 1, and 1; of a bandit, the regret per press up to what the best arm lacks."""
    return 1 - (episode.reward or 0.0), 1


def repeats(trajectory: Trajectory, episode: Episode) -> tuple[float, float]:
    """Calls that were made before in the episode, and all calls: what is left of exploring."""
    calls = [(c.name, repr(c.arguments)) for m in trajectory.dialogue(episode.leaf) for c in m.tool_calls]
    return len(calls) - len(set(calls)), max(1, len(calls))


def rate(name: str) -> Callable[[Trajectory, Episode], tuple[float, float]]:
    """What is above and below the line of one of RATES, from the counts among the episode's scores."""
    return lambda trajectory, episode: parts_of(name, episode.scores)


MEASURES: dict[str, Callable[[Trajectory, Episode], tuple[float, float]]] = {
    "invalid": invalid,
    "prompt": prompt,
    "shortfall": shortfall,
    "repeats": repeats,
    **{name: rate(name) for name in RATES},
}
"""Name -> two numbers of an episode, whose sums over all episodes are divided. Less is better, but in HIGHER."""
HIGHER = RATES.keys() - {"false alarm"}


# -- running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What a study found: a row of `evidence/<recipe>.json`."""

    recipe: str
    system: int | None
    measures: list[str]
    seeds: list[int]
    figures: dict[str, dict[str, Any]]
    """Name -> `value`, `interval`, `better` (which sign is good; 0 neither) and `verdict`."""
    arms: dict[str, dict[str, Any]]
    """Label -> each measure's value by seed, and `tokens_trained`, `tokens_sampled`, `seconds` by seed."""
    verdict: str
    """`effect shown`, `null` or `negative`: of the first measure against all baselines together."""
    budget: dict[str, Any]
    made: dict[str, Any]
    """`commit`, `date` and `machine`."""

    def __str__(self) -> str:
        width = max(map(len, self.figures))
        lines = [f"{self.recipe}: {self.verdict}, {len(self.seeds)} seeds"]
        for name, figure in self.figures.items():
            low, high = figure["interval"]
            lines.append(f"{name:{width}}  {figure['value']:+.3f} [{low:+.3f}, {high:+.3f}]  {figure['verdict']}")
        for label, arm in self.arms.items():
            told = ", ".join(f"{key} {np.mean(values):.3f}" for key, values in arm.items() if key in self.measures)
            lines.append(f"{label:{width}}  {told}" if told else label)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What the evidence file holds."""
        return dict(vars(self))


def run_evidence(name: str) -> Evidence:
    """Run a recipe's study, or go on with it, and write `evidence/<recipe>.json`.

    Raises RecipeError where the recipe describes none, EtudeError for a measure that no arm has.
    """
    recipe = recipes.load(name)
    if not recipe.data["evidence"]:
        raise RecipeError(
            f"recipe {recipe.name!r} describes no study; write  evidence: {{against: {{...}}, measure: success}}"
        )
    options = recipes.resolve(recipe, {**runs.SCHEMA, "evidence": settings})["evidence"]
    seeds, start = list(range(options["seeds"])), time.monotonic()
    if options["study"]:
        found = importlib.import_module("etude." + options["study"].replace("/", ".")).study(seeds)
        figures, arms, measures = found["figures"], found["arms"], [*next(iter(found["arms"].values()))]
        decide = found["decide"]
    else:
        measures = [_label(measure) for measure in _listed(options["measure"])]
        figures, arms = _compare(recipe, _listed(options["measure"]), seeds)
        decide = [name for name in figures if name.startswith(f"{measures[0]}, - ") and not name.endswith(", - base")]
    for one in figures.values():
        one["verdict"] = verdict(one["interval"], one["better"])
    budget: dict[str, float] = {key: sum(sum(arm[key]) for arm in arms.values() if key in arm) for key in COST}
    if options["study"]:
        budget["seconds"] = time.monotonic() - start
    evidence = Evidence(
        recipe.name, recipe.data["system"], measures, seeds, figures, arms,
        verdict=overall([figures[name] for name in decide]),
        budget={"minutes": options["minutes"], **budget},
        made={"commit": commit(), "date": datetime.date.today().isoformat(), "machine": machine()},
    )  # fmt: skip
    # a checkout keeps the evidence of its recipes; an installed package is not written to
    folder = parts.PACKAGE.parent.parent / "evidence" if recipe.name in recipes.files() else Path("evidence")
    folder = folder if folder.is_dir() else Path("evidence")
    folder.mkdir(exist_ok=True)
    atomic_write(folder / f"{recipe.name}.json", json.dumps(evidence.to_json(), indent=1) + "\n")
    return evidence


def _compare(recipe: Recipe, measures: list[Any], seeds: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    arms = {"recipe": recipe, **recipes.baselines(recipe)}
    found: dict[str, list[dict[str, Figure]]] = {label: [] for label in ("base", *arms)}
    told: dict[str, dict[str, Any]] = {label: {} for label in found}
    for seed in seeds:
        first: Path | None = None
        for label, arm in arms.items():
            path, report = _run(arm, label, seed, first)
            first = first or path
            if label == "recipe":
                found["base"].append(_measured(path, report, "before", measures))
            found[label].append(_measured(path, report, "after", measures))
            for key in COST:
                told[label].setdefault(key, []).append(sum(stage.get(key, 0) for stage in report.cost.values()))
    figures: dict[str, Any] = {}
    for measure in map(_label, measures):
        for label in found:
            told[label][measure] = [by_seed[measure].value for by_seed in found[label]]
            if label != "recipe":
                ours, theirs = ([by_seed[measure] for by_seed in found[arm]] for arm in ("recipe", label))
                interval = crossed_bootstrap(theirs, ours)
                better = 0 if measure in ("turns", "tokens", "prompt") else 1 if ours[0].higher_is_better else -1
                figures[f"{measure}, - {label}"] = {
                    "value": interval.mean, "interval": [interval.low, interval.high], "better": better,
                }  # fmt: skip
    return figures, told


def verdict(interval: Sequence[float], better: int) -> str:
    """What an interval says of a claim. better: 1 where more is better, -1 where less is, 0 where neither."""
    low, high = interval
    return VERDICTS[better * (1 if low > 0 else -1 if high < 0 else 0)] if better else "not judged"


def overall(figures: Sequence[dict[str, Any]]) -> str:
    """One verdict of several: all must show the effect, and one that is negative decides."""
    found = {one["verdict"] for one in figures}
    return "negative" if "negative" in found else "effect shown" if found == {"effect shown"} else "null"


def _run(arm: Recipe, label: str, seed: int, first: Path | None) -> tuple[Path, Report]:
    data = {**arm.data, "name": f"{arm.name}-{label.replace(' ', '_')}-{seed}", "seed": seed, "evidence": {}}
    one = Recipe(data["name"], arm.file, data)
    resolved = recipes.resolve(one, runs.SCHEMA)
    path = FOLDER / run_id(resolved)
    if status(path) == "finished":
        return path, load_report(path)
    if first is not None and not (path / "state.json").exists():
        _share_first_measurement(first, path, resolved)
    report = runs.run(one, out=str(path)).report
    if report is None:
        raise RecipeError(f"recipe {arm.name!r} evaluates nothing, so there is nothing to compare; set evaluate.tasks")
    return path, report


def _share_first_measurement(first: Path, path: Path, resolved: dict[str, Any]) -> None:
    """Begin a run with the first measurement of another that measured the same: same policy, world, agent and seed."""
    there = recipes.read(first / "run.yaml")
    alike = ("policy", "environment", "agent", "weights", "seed", "evaluate")
    if any(there[key] != resolved[key] for key in alike):
        return
    (path / "trajectories").mkdir(parents=True, exist_ok=True)
    for file in (first / "trajectories").glob("00-before*"):
        shutil.copy(file, path / "trajectories")
    for name in ("floors.json", "probe.json", "losses-before.json"):
        if (first / name).exists():
            shutil.copy(first / name, path)
    state = {"phase": 1, "stage": "", "step": 0, "checkpoint": "", "data": [], "cost": {}, "metrics_position": 0}
    atomic_write(path / "state.json", json.dumps(state))


# -- reading ----------------------------------------------------------------------------------------------------------


def _listed(measure: Any) -> list[Any]:
    return measure if isinstance(measure, list) else [measure]


def _label(measure: Any) -> str:
    """`success`, or `success of difficulty 3, 4`."""
    if isinstance(measure, str):
        return measure
    ((row, chosen),) = measure.items()
    if row == "difference":
        return " less ".join(map(_label, chosen))
    return f"{row} of " + ", ".join(f"{key} {', '.join(map(str, _listed(value)))}" for key, value in chosen.items())


def _measured(path: Path, report: Report, when: str, measures: list[Any]) -> dict[str, Figure]:
    phases = [name for name, _, _ in runs.phases(recipes.read(path / "run.yaml"))]
    trajectories = list(Store(path / "trajectories").read([f"{phases[0 if when == 'before' else -1]}-success"]))
    return {_label(measure): _figure(report, when, trajectories, measure) for measure in measures}


def _figure(report: Report, when: str, trajectories: Sequence[Trajectory], measure: Any) -> Figure:
    row, chosen = (measure, {}) if isinstance(measure, str) else next(iter(measure.items()))
    if row == "difference":
        return difference(*(_figure(report, when, trajectories, one) for one in chosen))
    if row in MEASURES:
        counted = {t.task: np.sum([MEASURES[row](t, e) for e in t.episodes], 0) for t in trajectories}
        items = {task: tuple(map(float, pair)) for task, pair in counted.items()}
        return Figure(_chosen(items, trajectories, chosen), "ratio", higher_is_better=row in HIGHER)
    if row not in report.figures:
        raise EtudeError(f"evidence.measure: no row {row!r}; {suggest(row, [*report.figures, *MEASURES])}")
    found: Figure = report.figures[row][when]
    return Figure(_chosen(found.items, trajectories, chosen), found.statistic, found.unit, found.higher_is_better)


def _chosen(items: dict[str, Any], trajectories: Sequence[Trajectory], chosen: dict[str, Any]) -> dict[str, Any]:
    for key, value in chosen.items():
        wanted = set(_listed(value))
        fits = {t.task for t in trajectories if wanted & set(_listed(t.meta.get(key)))}
        items = {item: row for item, row in items.items() if item in fits}
        if not items:
            raise EtudeError(f"evidence.measure: no task has {key} in {sorted(wanted, key=str)}")
    return items


def crossed_bootstrap(
    before: Sequence[Figure], after: Sequence[Figure], *, level: float = 0.95, draws: int = 5000, seed: int = 0
) -> Interval:
    """Mean over seeds of the difference after - before; the interval draws seeds and items anew, both crossed.

    before, after: one figure per seed, over the same items.

    >>> one = [Figure({"a": (0.0,), "b": (1.0,)})] * 3
    >>> crossed_bootstrap(one, one)
    Interval(mean=0.0, low=0.0, high=0.0)
    """
    ids = [i for i in before[0].items if all(i in f.items for f in (*before, *after))]
    of, random = STATISTICS[before[0].statistic], np.random.default_rng(seed)

    def difference_DS(count_DN: np.ndarray) -> np.ndarray:
        pairs = zip(before, after, strict=True)
        return np.stack([of(count_DN, a.rows_NK(ids)) - of(count_DN, b.rows_NK(ids)) for b, a in pairs], 1)

    N, S = len(ids), len(before)
    count_DN = random.multinomial(N, np.full(N, 1 / N), size=draws).astype(np.float64)
    share_DS = random.multinomial(S, np.full(S, 1 / S), size=draws) / S
    mean_D = (difference_DS(count_DN) * share_DS).sum(1)
    low, high = np.quantile(mean_D, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(difference_DS(np.ones((1, N))).mean()), float(low), float(high))


# -- where and when ---------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Processor, cores and the versions that numbers depend on."""
    import torch

    return {**processor(), "torch": torch.__version__}


def processor() -> dict[str, Any]:
    """What `machine` says where nothing needs torch."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def commit() -> str | None:
    """The checkout's commit, and whether it was changed since; None outside a checkout."""
    describe = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True)
    return found.stdout.strip() or None
