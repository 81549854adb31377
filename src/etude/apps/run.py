"""Running a recipe: measure, practise stage by stage, measure again, report. Killed at any time, it goes on exactly.

Everything random follows from the recipe's seed, the phase and the step, and a phase starts only when the one before it
is on disk. So going on means: read the state, load its checkpoint, repeat at most the steps after it. On CPU the
numbers are the same to the last bit.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etude.apps import measure
from etude.apps.stages import STAGES
from etude.apps.work import Work, final_model
from etude.core import recipe as recipes
from etude.core.errors import RecipeError
from etude.core.progress import Stop, stopping
from etude.core.recipe import Recipe
from etude.core.rundir import RunDirectory, run_id
from etude.training import distributed

SCHEMA = {**STAGES, "evaluate": measure.measure}


@dataclass(frozen=True)
class Finished:
    """A run that reached its end."""

    path: Path
    report: Any
    """An `etude.evaluation.report.Report`; None where the recipe evaluates nothing."""


def run(
    recipe: Recipe | str,
    *,
    out: str | None = None,
    policy: Any = None,
    environment: Any = None,
    agent: Any = None,
    **overrides: Any,
) -> Finished:
    """Run a recipe, or go on with it where an earlier call of the same recipe stopped.

    recipe: one that was loaded, or its name or path. out: the run's directory; by default `runs/<recipe>-<hash>`.
    policy, environment, agent: a part's name, or an object of one's own in its place.
    overrides: top-level keys of the recipe, such as `seed=1` or `evaluate={"tasks": 20}`.
    """
    given = {"policy": policy, "environment": environment, "agent": agent}
    objects = {key: value for key, value in given.items() if value is not None and not isinstance(value, (str, dict))}
    loaded = recipes.load(recipe) if isinstance(recipe, str) else recipe
    for key, value in {**given, **overrides}.items():
        if value is not None and key not in objects:
            recipes.assign(loaded, key, value)
    for key in objects:
        loaded.data[key] = None if key != "agent" else loaded.data[key]
    resolved = recipes.resolve(loaded, SCHEMA)
    missing = [key for key in ("policy", "environment") if resolved[key] is None and key not in objects]
    if missing:
        raise RecipeError(f"recipe {loaded.file.name!r} names no {missing[0]}; add  {missing[0]}: NAME")
    path = Path(out or Path("runs") / "-".join([run_id(resolved), *(_name_of(objects[k]) for k in sorted(objects))]))
    with distributed.joined(), opened(path, resolved) as directory, stopping() as stop:
        return replace(asyncio.run(_run(_open(resolved, directory, stop, objects))), path=path)


@contextlib.contextmanager
def opened(path: Path, resolved: dict[str, Any]) -> Iterator[RunDirectory]:
    """The run's directory. Other ranks than the first share its trajectories and checkpoints, and copy the rest."""
    if distributed.rank() == 0:
        with RunDirectory(path, resolved) as directory:
            distributed.gather(None)  # it is there, and cut back to its last state
            distributed.gather(None)  # and copied
            yield directory
        return
    distributed.gather(None)
    with tempfile.TemporaryDirectory() as place:
        ignored = shutil.ignore_patterns("trajectories", "checkpoints", "model", "lock")
        shutil.copytree(path, place, ignore=ignored, dirs_exist_ok=True)
        distributed.gather(None)
        with RunDirectory(place, resolved) as directory:
            directory.trajectories, directory.checkpoints = path / "trajectories", path / "checkpoints"
            yield directory


def _name_of(thing: Any) -> str:
    return str(getattr(thing, "name", type(thing).__name__))


def _open(resolved: dict[str, Any], directory: RunDirectory, stop: Stop, objects: dict[str, Any]) -> Work:
    """Build the parts, and put everything where the saved state says it was."""
    from etude.rollout.collect import attach

    def part(key: str, shelf: str) -> Any:
        return objects[key] if key in objects else recipes.build(shelf, resolved[key])

    given = {key: objects.get(key, resolved[key]) for key in recipes.PARTS}

    if (resolved["policy"] or {}).get("local", {}).get("model") == "tiny":
        from etude.synthesis import tiny

        distributed.first(lambda: str(tiny.ensure()))
    policy = distributed.first_alone(lambda: part("policy", "policies"))  # it may convert a model into the cache
    attach(policy)
    environment, agent = part("environment", "environments"), part("agent", "agents/loops")
    work = Work(resolved, directory, policy, environment, agent, stop, given=given)
    state = directory.state
    if state:
        work.phase, work.name, work.step = state["phase"], state["stage"], state["step"]
        work.checkpoint, work.data, work.cost = state["checkpoint"], state["data"], state["cost"]
        if work.checkpoint:
            from etude.training.learner import load_weights

            load_weights(policy, recipes.build("weights", resolved["weights"]), directory.checkpoints / work.checkpoint)
        if not state.get("finished"):
            work.log(f"going on at {work.name or 'phase ' + str(work.phase)}, step {work.step}")
    return work


def phases(resolved: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, verb, options) of each phase of a run, in order."""
    stages = [next(iter(stage.items())) for stage in resolved["stages"]]
    ring = [("before", {}), *stages, ("after", {})] if resolved["evaluate"].get("tasks") else stages
    return [(f"{i:02d}-{verb}", verb, options) for i, (verb, options) in enumerate(ring)]


async def _run(work: Work) -> Finished:
    todo = phases(work.recipe)
    for i, (name, verb, options) in enumerate(todo):
        if i < work.phase:
            continue
        work.enter(i, name)
        if verb in ("before", "after"):
            await measure.measure(work, verb, **work.recipe["evaluate"])
        else:
            await STAGES[verb](work, **options)
        work.leave()
    if work.checkpoint and distributed.rank() == 0 and not final_model(work.directory.path).exists():
        work.policy.save(final_model(work.directory.path))
    report = measure.report(work, todo[0][0], todo[-1][0]) if todo and todo[0][1] == "before" else None
    work.directory.save_state(**{**work.directory.state, "finished": True})
    return Finished(work.directory.path, report)


def preflight(recipe: Recipe, *, show: int | None = None) -> "Checked":
    """Make the data of a recipe as its stages before the first training do, and check it, in a temporary directory.

    show: a sample to draw token by token.
    """
    from etude.apps.stages import prepare
    from etude.curation.preflight import draw
    from etude.curation.preflight import preflight as inspect
    from etude.trajectory import episodes

    resolved = recipes.resolve(recipe, SCHEMA)

    async def make(work: Work) -> None:
        for name, verb, options in phases({**resolved, "evaluate": {}}):
            if verb in ("train", "practise", "iterate", "preflight"):
                break
            work.enter(work.phase, name)
            await STAGES[verb](work, **options)
            work.leave()

    with tempfile.TemporaryDirectory() as place, RunDirectory(place, resolved) as directory, stopping() as stop:
        work = _open(resolved, directory, stop, {})
        asyncio.run(make(work))
        data = prepare(work, work.read_data())
        if not data:
            raise RecipeError(f"recipe {recipe.file.name!r} has no data before its first training: nothing to check")
        findings = inspect(
            data,
            work.policy.renderer,
            test_tasks={t.id for t in work.environment.tasks("test")},
            reward_range=work.environment.reward_range,
            max_tokens=work.policy.context,
        )
        drawn = ""
        if show is not None:
            samples = list(episodes(data))
            if not 0 <= show < len(samples):
                raise RecipeError(f"--show {show}: there are samples 0 to {len(samples) - 1}")
            drawn = draw(samples[show][0], samples[show][1].leaf, work.policy.renderer)
        else:
            findings.raise_if_any()
    return Checked(drawn, [str(f) for f in findings], findings.samples)


@dataclass(frozen=True)
class Checked:
    """What preflight saw."""

    drawn: str
    findings: list[str]
    samples: int

    def __str__(self) -> str:
        told = self.findings or [f"preflight: {self.samples} samples pass"]
        return "\n".join(filter(None, [self.drawn, *told]))

    def to_json(self) -> dict[str, Any]:
        return {"samples": self.samples, "findings": self.findings}


def evaluate(recipe: Recipe, *, run: Path | None = None, out: str | None = None) -> Any:
    """Measure a recipe's policy as it is, or the model that a run made, without training.

    run: a run directory; its tuned model is measured against the policy that it started from.
    """
    data = {**recipe.data, "stages": []}
    measured = Recipe(f"{recipe.name}-eval", recipe.file, data)
    if run is not None:
        report = run / "report.json"
        if report.exists():
            from etude.evaluation.report import load_report

            return load_report(run)
        raise RecipeError(f"{run} has not finished; `etude run` with the same recipe goes on with it and evaluates")
    measured.data["name"] = measured.name
    resolved = recipes.resolve(measured, SCHEMA)
    path = Path(out or Path("runs") / run_id(resolved))
    with distributed.joined(), opened(path, resolved) as directory, stopping() as stop:
        work = _open(resolved, directory, stop, {})
        return asyncio.run(_measure_once(work))


async def _measure_once(work: Work) -> "Standing":
    name, verb, _ = phases(work.recipe)[0]
    work.enter(0, name)
    await measure.measure(work, verb, **work.recipe["evaluate"])
    sets = measure.played(work, name)
    from etude.evaluation.gain import measured as count

    ids = count(sets, threshold=work.recipe["evaluate"]["threshold"])
    figures = {label: one.figures(list(one.attempts))["success"].value for label, one in ids.sets.items()}
    work.directory.save_state(finished=True)
    return Standing(figures)


@dataclass(frozen=True)
class Standing:
    """Success of one policy on each task set, as shares."""

    figures: dict[str, float]

    def __str__(self) -> str:
        return "\n".join(f"{label:12} {100 * value:.0f}%" for label, value in self.figures.items())

    def to_json(self) -> dict[str, Any]:
        return self.figures
