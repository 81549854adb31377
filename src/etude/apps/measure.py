"""Measuring a policy on held-out tasks and on what it may have lost: the first and the last phase of a run."""

import json
from collections.abc import Sequence
from typing import Any

from etude.apps.work import Work, model_of
from etude.core.errors import EtudeError
from etude.core.progress import progress
from etude.evaluation.gain import Measured, measured
from etude.evaluation.losses import Losses, Probe
from etude.protocols import Environment, Sampling, Task
from etude.trajectory import Message, Trajectory

FIRST = "00-before"  # the name of the first measurement's phase
OWN = 16  # episodes of the base, on which the task KL is measured
NOUNS = {"success": "held-out tasks", "new domains": "tasks, tools never seen", "bfcl": "BFCL simple calls"}


async def measure(
    work: Work,
    when: str,
    *,
    tasks: int = 100,
    split: str = "test",
    domains: int = 0,
    bfcl: int = 0,
    samples: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 64,
    max_turns: int = 8,
    losses: bool = True,
    threshold: float = 1.0,
) -> None:
    """Play every task set and measure the losses, `when` = `before` or `after`; all of it is kept in the run directory.

    tasks: of the split `split`, the primary set; 0 measures nothing.
    domains: tasks of the split `domains`, whose tools training never shows.
    bfcl: tasks of the Berkeley Function-Calling Leaderboard (needs bfcl-eval).
    samples: episodes per task, for pass@k; with more than one, set temperature.
    temperature, max_tokens, max_turns: of the policy's play; max_tokens per turn.
    losses: measure KL, perplexity, general questions, calibration, refusals and diversity.
    threshold: smallest reward that counts as solved.
    """
    sets = task_sets(work.environment, tasks, split, domains, bfcl)
    for done, (label, chosen) in enumerate(sets.items()):
        if done < work.step:  # a killed run goes on with the next set
            continue
        await _play(
            work,
            f"evaluate {when}: {label}",
            chosen,
            samples,
            Sampling(max_tokens, temperature),
            max_turns,
            _key(label),
        )
        work.save(done + 1)
        work.check_stop()
    if when == "before":
        floors = {label: await floor(chosen, work.agent, threshold) for label, chosen in sets.items()}
        work.directory.write("floors.json", json.dumps(floors))
    if losses:
        if when == "before":
            own = sets["success"][:OWN]
            await _play(work, "evaluate before: own episodes", own, 1, Sampling(max_tokens, 1.0), max_turns, "own")
        await _losses(work, when, threshold)


async def _play(
    work: Work, what: str, tasks: Sequence[Task], samples: int, sampling: Sampling, max_turns: int, key: str
) -> None:
    with progress(len(tasks) * samples, what, "episodes") as advance:
        played = await work.play(
            tasks,
            group=samples,
            sampling=sampling,
            seed=work.seed,
            max_turns=max_turns,
            name=f"{work.name}/{key}/",  # the same task may be in two sets
            on_episode=work.stoppable(advance),
        )
    work.put(played, key)


def _key(label: str) -> str:
    return label.replace(" ", "_")


def task_sets(environment: Environment, tasks: int, split: str, domains: int, bfcl: int) -> dict[str, Sequence[Task]]:
    """Label -> tasks; the primary set first."""
    sets: dict[str, Sequence[Task]] = {"success": _first(environment, split, tasks)}
    if domains:
        sets["new domains"] = _first(environment, "domains", domains)
    if bfcl:
        from etude.core import parts

        sets["bfcl"] = _first(parts.build("environments/bfcl"), "test", bfcl)
    return sets


def _first(environment: Environment, split: str, count: int) -> list[Task]:
    tasks = environment.tasks(split)
    if len(tasks) == 0:
        raise EtudeError(f"environment {environment.name!r} has no tasks in split {split!r} to evaluate on")
    return [tasks[i] for i in range(min(count, len(tasks)))]


async def floor(tasks: Sequence[Task], agent: Any, threshold: float) -> float:
    """Share of the tasks that an agent solves by doing nothing: one empty answer."""
    from etude.policies.scripted import scripted
    from etude.rollout.collect import collect

    idle = await collect(scripted(lambda dialogue: Message("assistant", "")), tasks, agent=agent, max_turns=1)
    return sum((t.episodes[0].reward or 0.0) >= threshold for t in idle) / len(tasks)


async def _losses(work: Work, when: str, threshold: float) -> None:
    from etude.evaluation import losses

    policy, file = model_of(work.policy), work.directory.path / "probe.json"
    if when == "before":
        work.directory.write("probe.json", json.dumps((await losses.prepare(policy, seed=work.seed)).to_json()))
    probe = Probe(**json.loads(file.read_text()))
    primary = list(work.store.read([f"{work.name}-success"]))
    own = list(work.store.read([f"{FIRST}-own"]))
    found = await losses.measure(policy, probe, trajectories=primary, own=own, threshold=threshold, seed=work.seed)
    if when == "after" and "task KL" in found.figures:
        moved = found.figures["task KL"].value
        work.log(f"evaluate after: {moved:.2f} nats per token from the base on the task, which foretells forgetting")
    work.directory.write(f"losses-{when}.json", json.dumps(found.to_json()))


def played(work: Work, phase: str) -> dict[str, list[Trajectory]]:
    """The trajectories of a finished measurement, by label."""
    options = work.recipe["evaluate"]
    labels = ["success", *(["new domains"] if options["domains"] else []), *(["bfcl"] if options["bfcl"] else [])]
    return {label: list(work.store.read([f"{phase}-{_key(label)}"])) for label in labels}


def report(work: Work, first: str, last: str) -> Any:
    """Compare the two measurements and write report.html and report.json."""
    from etude.evaluation.html import write_report
    from etude.evaluation.report import build_report, pick_examples

    threshold = work.recipe["evaluate"]["threshold"]
    before, after = played(work, first), played(work, last)
    floors = json.loads((work.directory.path / "floors.json").read_text())

    def counted(sets: dict[str, list[Trajectory]]) -> Measured:
        return measured(sets, threshold=threshold, floor=floors)

    def lost(when: str) -> Losses | None:
        file = work.directory.path / f"losses-{when}.json"
        return Losses.from_json(json.loads(file.read_text())) if file.exists() else None

    made = build_report(
        counted(before),
        counted(after),
        lost("before"),
        lost("after"),
        cost=work.cost,
        curves=work.directory.metrics.rows(),
        examples=pick_examples(before["success"], after["success"], threshold=threshold),
        name=work.recipe["name"],
        path=str(work.directory.path / "report.html"),
        nouns=NOUNS,
    )
    write_report(made, work.directory.path)
    return made
