"""What an agent can do, counted from its episodes.

A task is solved when the reward of the whole episode reaches a threshold. A failed episode is never reward 0; what it
means for success depends on what broke:

- the thing under test (boundaries `model`, `agent`, `time`): the task was not solved, and the episode counts;
- the test (boundaries `environment`, `tool`, `scorer`, or an episode that nobody rewarded): the episode is left out.

Both are counted by boundary and shown in the report.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from etude.core.errors import EtudeError
from etude.evaluation.normalise import known, normalised
from etude.evaluation.statistics import Figure, pass_at_k
from etude.trajectory import Boundary, Episode, Trajectory, episodes

UNDER_TEST = (Boundary.MODEL, Boundary.AGENT, Boundary.TIME)


def solved(episode: Episode, threshold: float = 1.0) -> bool | None:
    """Whether the episode solved its task; None where the test itself broke, or gave no reward.

    threshold: the smallest reward that counts, in the environment's own unit.
    """
    if episode.failure is not None:
        return False if episode.failure.boundary in UNDER_TEST else None
    return None if episode.reward is None else episode.reward >= threshold - 1e-9


@dataclass(frozen=True)
class TaskSet:
    """The episodes of one set of held-out tasks, counted by task id."""

    attempts: dict[str, tuple[int, int]]
    """Task -> (solved, counted) episodes; (0, 0) where every episode was left out."""
    turns: dict[str, float] = field(default_factory=dict)
    """Task -> mean turns of its counted episodes."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Task -> mean sampled tokens of its counted episodes."""
    scores: dict[str, float] = field(default_factory=dict)
    """Task -> mean normalised score of its counted episodes, where its world has references."""
    failures: dict[str, int] = field(default_factory=dict)
    """Boundary -> episodes that failed there; `unrewarded` for those that ended without a reward."""
    episodes: int = 0
    floor: float | None = None
    """Share of the tasks that an agent solves by doing nothing, where it was measured."""

    def figures(self, ids: Sequence[str], k: Sequence[int] = ()) -> dict[str, Figure]:
        """`success`, `pass@k` for each k, `turns`, `tokens`, over those of the tasks that have counted episodes; and
        `normalised score`, where all of these have one."""
        attempts = {i: self.attempts[i] for i in ids if self.attempts[i][1]}
        figures = {"success": Figure({i: (c / n,) for i, (c, n) in attempts.items()}, unit="share")}
        for size in k:
            items = {i: (pass_at_k(n, c, size),) for i, (c, n) in attempts.items()}
            figures[f"pass@{size}"] = Figure(items, unit="share")
        if attempts and all(i in self.scores for i in attempts):
            figures["normalised score"] = Figure({i: (self.scores[i],) for i in attempts})
        figures["turns"] = Figure({i: (self.turns[i],) for i in attempts}, unit="turns", higher_is_better=False)
        figures["tokens"] = Figure({i: (self.tokens[i],) for i in attempts}, unit="tokens", higher_is_better=False)
        return figures


@dataclass(frozen=True)
class Measured:
    """One agent on every set of held-out tasks; the first set is the primary one, which decides the verdict."""

    sets: dict[str, TaskSet]
    threshold: float = 1.0


def measured(
    sets: Mapping[str, Sequence[Trajectory]], *, threshold: float = 1.0, floor: Mapping[str, float] | None = None
) -> Measured:
    """Count the episodes of each task set.

    sets: name of the set -> its trajectories, the primary set first; trajectories of the same task are put together.
    threshold: the smallest reward that counts as solved.
    floor: name of the set -> share of its tasks that doing nothing solves.
    Raises EtudeError when a set is empty.
    """
    counted = {}
    for name, trajectories in sets.items():
        if not trajectories:
            raise EtudeError(f"task set {name!r} holds no trajectories: there is nothing to measure")
        counted[name] = _count(trajectories, threshold, (floor or {}).get(name))
    return Measured(counted, threshold)


def _count(trajectories: Sequence[Trajectory], threshold: float, floor: float | None) -> TaskSet:
    by_task: dict[str, list[tuple[bool, Episode]]] = {t.task: [] for t in trajectories}
    failures: Counter[str] = Counter()
    total = 0
    for trajectory, episode in episodes(trajectories):
        total += 1
        if episode.failure is not None:
            failures[str(episode.failure.boundary)] += 1
        elif episode.reward is None:
            failures["unrewarded"] += 1
        success = solved(episode, threshold)
        if success is not None:
            by_task[trajectory.task].append((success, episode))
    references = {t.task: known(t.environment).get(t.meta.get("domain", "")) for t in trajectories}
    return TaskSet(
        scores={
            task: sum(normalised(e.reward or 0.0, reference) for _, e in rows) / len(rows)
            for task, rows in by_task.items()
            if rows and (reference := references[task])
        },
        attempts={task: (sum(s for s, _ in rows), len(rows)) for task, rows in by_task.items()},
        turns={task: sum(e.turns for _, e in rows) / len(rows) for task, rows in by_task.items() if rows},
        tokens={task: sum(e.tokens_sampled for _, e in rows) / len(rows) for task, rows in by_task.items() if rows},
        failures=dict(failures),
        episodes=total,
        floor=floor,
    )


def paired_tasks(name: str, before: TaskSet, after: TaskSet) -> list[str]:
    """Ids of the tasks with at least one counted episode on both sides.

    Raises EtudeError, naming it, for a task that one side never tried, and when no task is left.
    """
    for side, absent in (
        ("before", after.attempts.keys() - before.attempts.keys()),
        ("after", before.attempts.keys() - after.attempts.keys()),
    ):
        if absent:
            first = min(absent)
            more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            raise EtudeError(
                f"task set {name!r}: task {first!r}{more} was not tried {side}; both sides must try the same tasks"
            )
    ids = [task for task, (_, n) in before.attempts.items() if n and after.attempts[task][1]]
    if not ids:
        raise EtudeError(f"task set {name!r}: no task has a counted episode both before and after; see the failures")
    return ids


def attempt_sizes(ids: Sequence[str], before: TaskSet, after: TaskSet) -> list[int]:
    """The k of pass@k that every task has enough attempts for: 2, 4, 8, …"""
    fewest = min(min(before.attempts[i][1], after.attempts[i][1]) for i in ids)
    return [2**p for p in range(1, fewest.bit_length()) if 2**p <= fewest]
