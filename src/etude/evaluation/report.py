"""Before against after: rows with intervals, one verdict, one exit code.

Every row is a paired difference over its items (tasks, questions, paragraphs, prompts) with a bootstrap interval, and a
tolerance: how much worse it may become before it counts as lost.

    better   the interval lies wholly on the good side (gain rows only)
    lost     worse by more than the tolerance, and the interval excludes no change
    unsure   worse by more than the tolerance, but the interval includes no change: measure more items
    kept     anything else
    up, down, same    rows without a tolerance, which are shown and not judged

    verdict        when                                                                     exit code
    better         the primary success is better, and nothing is lost                          0
    narrower       the primary success is better, and something is lost                        3
    no different   the primary success is not better, and nothing is lost                      4
    worse          the primary success is lost, or it is not better and something is lost      5

"Something" is any other gain row (success on another domain, pass@k) or any loss row. Codes 1 and 2 stay free for
errors and wrong usage.

`report.json`, schema 1: the fields of `Report` by name, with `verdict`, `reason` and `exit_code` beside them, and
`label` in each row. A bound that cannot be computed (one item) is null, as is a metric that was not finite.
`figures[row]["before" | "after"]` is a `Figure`: `items` maps an item to the numbers that `statistic` reads.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.core.errors import EtudeError, FormatError, suggest
from etude.evaluation.gain import Measured, attempt_sizes, paired_tasks, solved
from etude.evaluation.losses import Losses
from etude.evaluation.statistics import Figure, paired_bootstrap
from etude.trajectory import Episode, Message, Trajectory

SCHEMA = 1
EXIT_CODES = {"better": 0, "narrower": 3, "no different": 4, "worse": 5}

TOLERANCES: dict[str, float] = {
    "KL": 0.10,  # nats per token
    "perplexity": 0.05,  # of the value before
    "general": 0.03,  # share of questions
    "calibration": 0.05,  # ECE
    "episodes' calibration": 0.10,  # ECE; fewer and longer items
    "benign refused": 0.10,  # share of requests
    "harmful refused": 0.10,
    "diversity": 0.05,  # Jaccard distance
}
RELATIVE = ("perplexity",)
"""Rows whose tolerance is a share of the value before."""
NOUNS = {
    "KL": "texts of the base",
    "KL k3": "texts of the base",
    "task KL": "episodes of the base",
    "perplexity": "paragraphs",
    "general": "questions",
    "calibration": "questions",
    "episodes' calibration": "tasks",
    "benign refused": "requests",
    "harmful refused": "requests",
    "diversity": "prompts",
    "distinct-2": "prompts",
}
COST = ("seconds", "tokens_sampled", "tokens_trained", "tokens_prefilled", "flops", "peak_memory_bytes")
EXAMPLE_KINDS = ("solved now", "no longer solved", "solved by neither", "solved by both")
MESSAGE_LIMIT = 4_000


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    name: str
    kind: str
    """`gain` and `loss` are judged; `effort` and `detail` are only shown."""
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    items: int
    noun: str
    unit: str = ""
    higher_is_better: bool = True
    tolerance: float | None = None
    """In the row's own unit; None where the row is not judged."""

    @property
    def worsening(self) -> float:
        """How much worse, in the row's own unit; negative is an improvement."""
        return -self.difference if self.higher_is_better else self.difference

    @property
    def label(self) -> str:
        """`better`, `kept`, `lost`, `unsure`; `up`, `down`, `same` for a row that is not judged."""
        rises, falls = (self.low is not None and self.low > 0), (self.high is not None and self.high < 0)
        if self.tolerance is None:
            return "up" if rises else "down" if falls else "same"
        improves, worsens = (rises, falls) if self.higher_is_better else (falls, rises)
        if self.kind == "gain" and improves:
            return "better"
        if self.worsening > self.tolerance:
            return "lost" if worsens else "unsure"
        return "kept"


@dataclass(frozen=True)
class Report:
    """What was gained, what was lost, what it cost."""

    name: str
    rows: list[Row]
    """The first one is the primary success."""
    figures: dict[str, dict[str, Figure]] = field(repr=False)
    """Row -> `before`, `after`, item by item."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Task set -> `before`, `after` (episodes and failures by boundary), `floor`, `tasks`, `left_out`."""
    cost: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    """Stage -> the amounts named in COST."""
    curves: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """Rows of metrics.jsonl: `stage`, `step` and any figures."""
    examples: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """As `pick_examples` makes them."""
    answers: dict[str, dict[str, list[str]]] = field(default_factory=dict, repr=False)
    """Request or prompt -> `before`, `after` answers."""
    settings: dict[str, Any] = field(default_factory=dict)
    """`threshold` of success, `level` and `seed` of the intervals."""
    notes: list[str] = field(default_factory=list)
    path: str = ""
    """Where the page is, for the last line of the text."""

    @property
    def verdict(self) -> str:
        """`better`, `narrower`, `no different` or `worse`."""
        return verdict(self.rows)

    @property
    def exit_code(self) -> int:
        """0 better, 3 narrower, 4 no different, 5 worse."""
        return EXIT_CODES[self.verdict]

    @property
    def reason(self) -> str:
        """The verdict in one or two sentences."""
        first = self.rows[0]
        low, high = bounds(first)
        moved = "rose" if first.difference > 0 else "fell" if first.difference < 0 else "did not change"
        by = (
            f" by {number(abs(first.difference), first)}{' points' if first.unit == 'share' else ''}"
            if first.difference
            else ""
        )
        told = f"{first.name.capitalize()} {moved}{by} [{low}, {high}] on {first.items} {first.noun}"
        lost = [row.name for row in self.rows[1:] if row.label == "lost"]
        unsure = [row.name for row in self.rows if row.label == "unsure"]
        told += (
            f"; lost: {', '.join(lost)}." if lost else "; nothing else that was measured was lost beyond its tolerance."
        )
        return told + (f" Unsure, too few items: {', '.join(unsure)}." if unsure else "")

    def __str__(self) -> str:
        shown = [row for row in self.rows if row.kind != "detail"]
        cells = [(row.label, row.name, *change(row), f"{row.items} {row.noun}") for row in shown]
        width = [max(len(cell[c]) for cell in cells) for c in range(5)]
        lines, last = [], ""
        for label, name, values, difference, items in cells:
            told = "" if label == last else label
            line = f"{told:8} {name:{width[1]}}  {values:{width[2]}}   {difference:{width[3]}}   {items}"
            lines.append(line.rstrip())
            last = label
        lines += [f"{'cost':8} {cost_line(self.cost)}"] if self.cost else []
        lines += [f"{'report':8} {self.path}"] if self.path else []
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What report.json holds."""
        figures = {row: {side: f.to_json() for side, f in sides.items()} for row, sides in self.figures.items()}
        told = {"verdict": self.verdict, "reason": self.reason, "exit_code": self.exit_code}
        labelled = [{**asdict(row), "label": row.label} for row in self.rows]
        return {"schema": SCHEMA, **told, **vars(self), "rows": labelled, "figures": figures}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Report":
        """The report that `to_json` wrote. Raises FormatError for another schema."""
        if value.get("schema") != SCHEMA:
            raise FormatError(
                f"report schema {value.get('schema')!r}: this version reads schema {SCHEMA}; evaluate the run again"
            )
        kept = {k: v for k, v in value.items() if k not in ("schema", "verdict", "reason", "exit_code")}
        kept["rows"] = [Row(**{k: v for k, v in row.items() if k != "label"}) for row in value["rows"]]
        kept["figures"] = {
            row: {side: Figure.from_json(f) for side, f in sides.items()} for row, sides in value["figures"].items()
        }
        return cls(**kept)


def load_report(directory: str | Path) -> Report:
    """The report of a run directory. Raises FormatError when there is none, or it cannot be read."""
    file = Path(directory) / "report.json"
    if not file.is_file():
        raise FormatError(f"{directory} holds no report.json; `etude run` writes one")
    try:
        return Report.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise FormatError(f"{file} is not a report of etude: {type(error).__name__}: {error}") from error


# -- building ------------------------------------------------------------------------------------------------------


def build_report(
    before: Measured,
    after: Measured,
    losses_before: Losses | None = None,
    losses_after: Losses | None = None,
    cost: Mapping[str, Mapping[str, float]] | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Mapping[str, Any]] = (),
    *,
    name: str = "run",
    path: str = "",
    nouns: Mapping[str, str] | None = None,
    tolerances: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    level: float = 0.95,
    seed: int = 0,
) -> Report:
    """Compare two measurements of the same tasks, and two of the same losses.

    nouns: task set -> what its items are called (`tasks, tools never seen`).
    tolerances: row -> tolerance, over TOLERANCES and the 0 of gain rows; perplexity's is a share of the value before.
    level, seed: of the bootstrap intervals.
    Raises EtudeError, naming the first, where tasks, items or success thresholds are not the same on both sides, and
    for a tolerance of a row that does not exist.
    """
    if before.sets.keys() != after.sets.keys() or before.threshold != after.threshold:
        raise EtudeError(
            f"before measured {sorted(before.sets)} at threshold {before.threshold}, after {sorted(after.sets)} at "
            f"{after.threshold}: measure both sides alike"
        )
    pairs: list[tuple[str, str, str, Figure, Figure]] = []
    counts = {}
    for position, (set_name, one) in enumerate(before.sets.items()):
        two = after.sets[set_name]
        ids = paired_tasks(set_name, one, two)
        sizes = attempt_sizes(ids, one, two)
        noun = (nouns or {}).get(set_name, "tasks" if position else "held-out tasks")
        figures = {key: (figure, two.figures(ids, sizes)[key]) for key, figure in one.figures(ids, sizes).items()}
        for key, (a, b) in figures.items():
            kind = "gain" if a.unit == "share" else "effort" if position == 0 else "detail"
            label = key if position == 0 else set_name if key == "success" else f"{set_name} {key}"
            pairs.append((label, kind, noun, a, b))
        counts[set_name] = {
            "tasks": len(ids),
            "left_out": len(one.attempts) - len(ids),
            "floor": one.floor if one.floor is not None else two.floor,
            "before": {"episodes": one.episodes, "failures": one.failures},
            "after": {"episodes": two.episodes, "failures": two.failures},
        }
    pairs += _losses(losses_before, losses_after)
    repeated = {p[0] for p in pairs if sum(p[0] == q[0] for q in pairs) > 1}
    if repeated:
        raise EtudeError(f"two rows are called {min(repeated)!r}; rename the task set")

    limits = {p[0]: 0.0 for p in pairs if p[1] == "gain"} | TOLERANCES
    for key in tolerances or {}:
        if key not in limits:
            raise EtudeError(f"tolerance of {key!r}: no such row is judged; {suggest(key, limits)}")
    limits |= dict(tolerances or {})
    for key, _, _, figure, _ in pairs:
        if key in RELATIVE:
            limits[key] *= figure.value
    # Success first, then the other task sets, then pass@k, effort, losses, and what is only shown.
    sets = {p[0] for p in pairs if p[0] == "success" or p[0] in before.sets}
    rank = {"gain": 1, "effort": 2, "loss": 3, "detail": 4}
    pairs.sort(key=lambda p: 0 if p[1] == "gain" and p[0] in sets else rank[p[1]])
    return Report(
        name=name,
        rows=[row_of(*pair, limits.get(pair[0]), level=level, seed=seed) for pair in pairs],
        figures={key: {"before": a, "after": b} for key, _, _, a, b in pairs},
        counts=counts,
        cost={stage: dict(amounts) for stage, amounts in (cost or {}).items()},
        curves=[dict(row) for row in curves],
        examples=[dict(example) for example in examples],
        answers=_answers(losses_before, losses_after),
        settings={"threshold": before.threshold, "level": level, "seed": seed},
        notes=list(notes),
        path=path,
    )


def verdict(rows: Sequence[Row]) -> str:
    """`better`, `narrower`, `no different` or `worse`, by the table at the top of this module.

    rows: the primary success first.
    """
    gained = rows[0].label == "better"
    lost = any(row.label == "lost" for row in rows)
    if gained:
        return "narrower" if lost else "better"
    return "worse" if lost else "no different"


def row_of(
    name: str,
    kind: str,
    noun: str,
    before: Figure,
    after: Figure,
    tolerance: float | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Row:
    """One row of two figures over the same items. tolerance: in the row's own unit."""
    ids = list(before.items)
    interval = paired_bootstrap(
        before.rows_NK(ids), after.rows_NK(ids), level=level, seed=seed, statistic=before.statistic
    )
    return Row(
        name=name,
        kind=kind,
        before=before.value,
        after=after.value,
        difference=interval.mean,
        low=None if math.isnan(interval.low) else interval.low,
        high=None if math.isnan(interval.high) else interval.high,
        items=len(ids),
        noun=noun,
        unit=before.unit,
        higher_is_better=before.higher_is_better,
        tolerance=tolerance,
    )


def _losses(before: Losses | None, after: Losses | None) -> list[tuple[str, str, str, Figure, Figure]]:
    if before is None or after is None:
        return []
    pairs = []
    for name, one in before.figures.items():
        if name not in after.figures:
            continue  # an episode figure that one side had no log-probabilities for
        two = after.figures[name]
        ids = [i for i in one.items if i in two.items]
        if name != "episodes' calibration" and len(ids) != len(one.items.keys() | two.items.keys()):
            item = min(one.items.keys() ^ two.items.keys())
            raise EtudeError(f"{name}: item {item!r} was measured on one side only; measure both with the same version")
        if ids:
            kind = "loss" if name in TOLERANCES else "detail"
            one, two = (Figure(**{**vars(f), "items": {i: f.items[i] for i in ids}}) for f in (one, two))
            pairs.append((name, kind, NOUNS.get(name, "items"), one, two))
    return pairs


def _answers(before: Losses | None, after: Losses | None) -> dict[str, dict[str, list[str]]]:
    if before is None or after is None:
        return {}
    return {ask: {"before": said, "after": after.answers.get(ask, [])} for ask, said in before.answers.items()}


# -- episodes to show ----------------------------------------------------------------------------------------------


def pick_examples(
    before: Sequence[Trajectory], after: Sequence[Trajectory], *, threshold: float = 1.0, count: int = 6
) -> list[dict[str, Any]]:
    """The first episode of some tasks, before and after, as JSON: `{task, kind, before, after}`.

    The kinds (EXAMPLE_KINDS) take turns, so that a task that is no longer solved is always shown when there is one.
    """
    firsts_after = {t.task: (t, t.episodes[0]) for t in reversed(after) if t.episodes}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in EXAMPLE_KINDS}
    seen = set()
    for trajectory in before:
        task = trajectory.task
        if task in seen or not trajectory.episodes or task not in firsts_after:
            continue
        seen.add(task)
        pair = (trajectory, trajectory.episodes[0]), firsts_after[task]
        was, now = (bool(solved(episode, threshold)) for _, episode in pair)
        kind = EXAMPLE_KINDS[{(False, True): 0, (True, False): 1, (False, False): 2, (True, True): 3}[was, now]]
        if len(found[kind]) < count:
            found[kind].append({"task": task, "kind": kind, "before": _episode(*pair[0]), "after": _episode(*pair[1])})
    turns = [row[n] for n in range(count) for row in found.values() if n < len(row)]
    return turns[:count]


def _episode(trajectory: Trajectory, episode: Episode) -> dict[str, Any]:
    failure = f"{episode.failure.boundary}: {episode.failure.error}" if episode.failure else ""
    return {
        "messages": [_message(message) for message in trajectory.dialogue(episode.leaf)],
        "reward": episode.reward,
        "turns": episode.turns,
        "tokens": episode.tokens_sampled,
        "stop": str(episode.stop or ""),
        "failure": _short(failure),
    }


def _message(message: Message) -> dict[str, Any]:
    calls = [
        {"name": c.name, "arguments": _short(json.dumps(c.arguments, ensure_ascii=False))} for c in message.tool_calls
    ]
    told = {"content": _short(message.content), "thought": _short(message.thought)}
    return {"role": message.role, "name": message.name, **told, "tool_calls": calls, "images": len(message.images)}


def _short(text: str) -> str:
    return (
        text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]}… ({len(text) - MESSAGE_LIMIT} characters more)"
    )


# -- numbers as text -----------------------------------------------------------------------------------------------


def number(value: float, row: Row, *, sign: bool = False) -> str:
    """A value in the row's unit: percent for shares, else as many decimals as its size needs."""
    if row.unit == "share":
        return f"{100 * value:{'+' if sign else ''}.0f}"
    size = max(abs(row.before), abs(row.after))
    decimals = 3 if row.unit == "nats" else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def bounds(row: Row) -> tuple[str, str]:
    """Both ends of the interval, signed; `?` where there is none."""
    low, high = ("?" if bound is None else number(bound, row, sign=True) for bound in (row.low, row.high))
    return low, high


def change(row: Row) -> tuple[str, str]:
    """`12% -> 83%` and `+71 [+62, +79]`."""
    percent = "%" if row.unit == "share" else ""
    before, after = (f"{number(value, row)}{percent}" for value in (row.before, row.after))
    low, high = bounds(row)
    return f"{before:>5} -> {after:<5}", f"{number(row.difference, row, sign=True):>4} [{low:>3}, {high:>3}]"


def cost_total(cost: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Amounts of all stages: their sum, and the maximum for memory."""
    total = {}
    for key in COST:
        amounts = [stage[key] for stage in cost.values() if stage.get(key) is not None]
        if amounts:
            total[key] = max(amounts) if key == "peak_memory_bytes" else sum(amounts)
    return total


def cost_line(cost: Mapping[str, Mapping[str, float]]) -> str:
    """`9 min 40 s, 184 k tokens trained, 61 k sampled, 2.6 GB`."""
    total = cost_total(cost)
    told = [duration(total["seconds"])] if "seconds" in total else []
    told += [f"{amount(total['tokens_trained'])} tokens trained"] if total.get("tokens_trained") else []
    told += [f"{amount(total['tokens_sampled'])} sampled"] if total.get("tokens_sampled") else []
    told += [amount(total["flops"], "FLOP")] if total.get("flops") else []
    told += [amount(total["peak_memory_bytes"], "B")] if total.get("peak_memory_bytes") else []
    return ", ".join(told)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(580)
    '9 min 40 s'
    """
    if seconds < 59.5:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def amount(value: float, unit: str = "") -> str:
    """A quantity with an SI prefix.

    >>> amount(184_000), amount(2.6e9, "B"), amount(12)
    ('184 k', '2.6 GB', '12')
    """
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.1f} {prefix}{unit}" if scaled < 9.95 else f"{scaled:.0f} {prefix}{unit}"
    return f"{value:.0f} {unit}".strip()
