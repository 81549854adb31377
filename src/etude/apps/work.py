"""What the stages of a run share: the parts, the data so far, where a killed run goes on, and what it all cost."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.core import recipe as recipes
from etude.core.errors import RecipeError
from etude.core.progress import Stop
from etude.core.rundir import RunDirectory
from etude.protocols import Agent, Environment, Policy, Task
from etude.training import distributed
from etude.trajectory import Message, Trajectory
from etude.trajectory.store import Store


@dataclass
class Work:
    """A run while it runs."""

    recipe: dict[str, Any]
    directory: RunDirectory
    policy: Any
    environment: Environment
    agent: Agent
    stop: Stop
    phase: int = 0
    """Place in the list of phases: the first evaluation, each stage, the last evaluation, the report."""
    name: str = ""
    """Of the phase, such as `02-train`; sorts by time and names shards, checkpoints and cost."""
    step: int = 0
    """Steps of this phase that a resumed run has behind it."""
    checkpoint: str = ""
    """The checkpoint that holds the weights of this moment; '' while they are the base model's."""
    data: list[str] = field(default_factory=list)
    """Keys of the shards that make up the data so far."""
    cost: dict[str, dict[str, float]] = field(default_factory=dict)
    learner: Any = None
    given: dict[str, Any] = field(default_factory=dict)
    """Policy, environment, agent and weights as the recipe writes them, or the object in its place."""
    workers: Any = None
    """The `rollout.workers.Workers` of `scale.workers`, from the first play on."""
    _tick: float = field(default_factory=time.monotonic)
    _counted: dict[str, float] = field(default_factory=dict)
    _saving: float = 0.0
    _saved: float = field(default_factory=time.monotonic)

    @property
    def seed(self) -> int:
        return self.recipe["seed"]

    @property
    def store(self) -> Store:
        return Store(self.directory.trajectories)

    def build(self, shelf: str, value: Any, **collaborators: Any) -> Any:
        """A part as the recipe writes it; where it names a model `aside:NAME`, the one that `set_aside` kept."""
        return recipes.build(shelf, self._found(value), **collaborators)

    def _found(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._found(inner) for key, inner in value.items()}
        if not isinstance(value, str) or not value.startswith("aside:"):
            return value
        path = self.aside(value.removeprefix("aside:"))
        if not path.exists():
            raise RecipeError(
                f"model {value!r} was not kept by an earlier stage; write  - set_aside: {{name: {path.name}}}"
            )
        return str(path)

    def aside(self, name: str) -> Path:
        """Where `set_aside` keeps a model of this name."""
        return self.directory.trajectories.parent / "aside" / name

    async def play(
        self,
        tasks: Sequence[Task],
        *,
        policy: Policy | None = None,
        agent: Agent | None = None,
        group: int = 1,
        seed: int = 0,
        name: str = "",
        on_episode: Callable[[], None] = lambda: None,
        **how: Any,
    ) -> list[Trajectory]:
        """Play tasks with the run's policy as it is now: here, divided among all ranks, or by the recipe's workers.

        policy, agent: others, such as an expert and its loop; they play here. how: see `rollout.collect.collect`.
        Each rank gets all trajectories.
        """
        from etude.rollout.collect import begin, collect

        count = self.recipe["scale"]["workers"]
        if count and policy is None and agent is None:
            how |= {"group": group, "seed": seed, "name": name, "on_episode": on_episode}
            return distributed.gather(await self._workers(count).play(tasks, **how) if distributed.rank() == 0 else [])[
                0
            ]
        rank, ranks = distributed.rank(), distributed.ranks()
        begun = begin(tasks, group=group, seed=seed, name=name)[rank::ranks]
        how |= {"agent": agent or self.agent, "begun": begun, "on_episode": on_episode}
        played = distributed.gather(await collect(policy or self.policy, tasks[rank::ranks], **how))
        for _ in range((len(tasks) - len(begun)) * group):
            on_episode()
        return [played[t % ranks][t // ranks] for t in range(len(tasks))]

    def _workers(self, count: int) -> Any:
        if self.workers is None:
            from etude.rollout.workers import Workers

            self.workers = Workers(self.policy, self.environment, self.given, count)
        return self.workers

    def begin_again(self) -> None:
        """Go on with the recipe's own policy, as it was before the first stage, and with no data."""
        from etude.rollout.collect import attach

        written = self.recipe["policy"]
        if not written:
            raise RecipeError("a stage goes back to the policy of the recipe, which names none; write  policy: NAME")
        self.count()  # the new policy counts from 0
        self.policy = distributed.first_alone(lambda: self.build("policies", written))
        attach(self.policy)
        self.checkpoint, self.data, self.workers = "", [], None
        self._counted = self._counters()

    def read_data(self) -> list[Trajectory]:
        """All trajectories of the data so far."""
        return list(self.store.read(self.data))

    def put(self, trajectories: Iterable[Trajectory], label: str = "") -> str:
        """Store trajectories under this phase's name; the same label again replaces them."""
        return distributed.first(lambda: self.store.write(trajectories, "-".join(filter(None, [self.name, label]))))

    def log(self, text: str) -> None:
        """A line for the person who watches and for log.txt."""
        self.directory.log(text)
        if distributed.rank() == 0:
            print(text, file=sys.stderr, flush=True)

    # -- going on after a kill -----------------------------------------------------------------------------------------

    def save(self, step: int, **extra: Any) -> None:
        """Record that this phase has `step` steps behind it, with the weights as they are."""
        start = time.monotonic()
        if self.learner is not None:
            from etude.training import checkpoint

            name = f"{self.name}-{step:06d}"
            checkpoint.save(self.learner, self.directory.checkpoints, name)
            self.checkpoint = name
        self._saving += time.monotonic() - start
        self.step = step
        self._save_state(**extra)

    def save_if_due(self, step: int, seconds: float) -> None:
        """`save` when the last one is at least this long ago; then stop, if that was asked for."""
        if distributed.anywhere(time.monotonic() - self._saved >= seconds or self.stop.requested):
            self.save(step)
            self.check_stop()

    def check_stop(self) -> None:
        """Call after `save`. Raises Stopped, on all ranks, when a stop was requested on any."""
        if distributed.anywhere(self.stop.requested):
            self.stop.requested = True
            self.stop.check()

    def stoppable(self, advance: Callable[[], None]) -> Callable[[], None]:
        """`advance`, which also ends the run where that was asked for: for play that a resumed run repeats anyway."""

        def on_episode() -> None:
            advance()
            if distributed.ranks() == 1:  # one of several would leave the others waiting for its episodes
                self.stop.check()

        return on_episode

    def _save_state(self, **extra: Any) -> None:
        self.count()
        self.directory.save_state(
            phase=self.phase,
            stage=self.name,
            step=self.step,
            checkpoint=self.checkpoint,
            data=self.data,
            cost=self.cost,
            **extra,
        )
        self._saved = time.monotonic()

    def enter(self, phase: int, name: str) -> None:
        """Begin a phase, or go on with the one that a killed run was in."""
        if (phase, name) != (self.phase, self.name):
            self.phase, self.name, self.step = phase, name, 0
        self._tick, self._counted = time.monotonic(), self._counters()

    def leave(self) -> None:
        """End a phase: what it made is on disk, and the next begins after it."""
        self.count()
        self.learner = None
        self._counted = self._counters()
        self.phase, self.name, self.step = self.phase + 1, "", 0
        self._save_state()
        self.check_stop()

    def take(self, learner: Any) -> Any:
        """Make this the phase's learner, with its state as it was if the run is being resumed."""
        from etude.training import checkpoint

        self.count()  # what came before is no part of the first step
        if self.step and self.checkpoint.startswith(self.name):
            checkpoint.load(learner, self.directory.checkpoints, self.checkpoint)
        self.learner = learner
        self._counted = self._counters()
        return learner

    # -- cost ----------------------------------------------------------------------------------------------------------

    def _counters(self) -> dict[str, float]:
        """What `etude doctor RUN` accounts for, since this process began."""
        generator, learner = getattr(self.policy, "generator", None), self.learner
        counters = generator.counters if generator else None
        played = {
            "tokens_prefilled": counters.prefilled if counters else 0,
            "tokens_reused": counters.reused if counters else 0,
            "tokens_sampled": counters.sampled if counters else 0,
            "decoding_steps": counters.steps if counters else 0,
        }
        return {
            **{key: int(count) for key, count in distributed.total(played).items()},
            "tokens_trained": learner.tokens_trained if learner else 0,
            "tokens_computed": learner.tokens_computed if learner else 0,
            "optimiser_steps": learner.done if learner else 0,
            "seconds_decoding": counters.decoding if counters else 0.0,
            "seconds_waiting": counters.waiting if counters else 0.0,
            "seconds_computing": learner.seconds_computing if learner else 0.0,
            "seconds_moving": learner.seconds_moving if learner else 0.0,
            "seconds_saving": self._saving,
        }

    def record(self, step: int, figures: dict[str, Any]) -> None:
        """Write a step's figures to metrics.jsonl, and what it took to timings.jsonl."""
        self.directory.metrics.append({"stage": self.name, "step": step, **figures})
        self.count(step)

    def count(self, step: int | None = None) -> None:
        """Add what was spent since the last count to this phase's cost, and with `step` to timings.jsonl as its row.

        FLOPs are counted as 2 per parameter and token read or sampled, 6 per token computed in training (forward and
        backward), attention left out.
        """
        if not self.name:  # between two phases nothing is spent
            return
        now, counters = time.monotonic(), self._counters()
        spent: dict[str, float] = {key: counters[key] - self._counted.get(key, 0) for key in counters}
        row = self.cost.setdefault(self.name, {})
        size = sum(p.numel() for p in self.policy.model.parameters()) if hasattr(self.policy, "model") else 0
        flops = size * (2 * (spent["tokens_prefilled"] + spent["tokens_sampled"]) + 6 * spent["tokens_computed"])
        spent["seconds"] = now - self._tick
        if step is not None:
            self.directory.timings.append({"stage": self.name, "step": step, **spent})
        for key, value in {"flops": float(flops), **spent}.items():
            row[key] = row.get(key, 0) + value
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        row["peak_memory_bytes"] = max(row.get("peak_memory_bytes", 0), peak)
        self._tick, self._counted = now, counters


def expert_of(environment: Environment) -> Callable[..., Sequence[Any]]:
    """The environment's `solve`. Raises EnvironmentFault where it has none."""
    from etude.core.errors import EnvironmentFault

    solve = getattr(environment, "solve", None)
    if solve is None:
        raise EnvironmentFault(f"environment {environment.name!r} has no expert; collect by: policy, or import logs")
    return solve


def script_of(agent: Agent) -> Callable[[Sequence[Message]], Sequence[Message]]:
    """What a policy says in this loop to play a world's solution: just that, unless the loop asks for more."""
    return getattr(agent, "script", lambda solution: solution)


def model_of(policy: Policy) -> Any:
    """The policy as a language model with weights. Raises PolicyError for one that has none."""
    from etude.core.errors import PolicyError

    if not callable(getattr(policy, "logprobs", None)):  # of a remote one that is a setting
        raise PolicyError(f"policy {policy.name!r} has no weights or tokenizer here; use policies/local")
    return policy


def final_model(directory: Path) -> Path:
    """Where a run leaves its tuned model."""
    return directory / "model"
