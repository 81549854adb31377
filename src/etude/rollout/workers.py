"""Play in other processes and on other machines, as Ray actors, with the same results as in one process up to rounding.

A worker holds a policy, an environment and an agent of its own. The unit of work is one task's group, given to
whichever worker has room. Its ids and seeds come from here, so nothing depends on who plays it; its scores are made
here, so that scorers and their judges stay one. The moved parameters of a version (of LoRA, the adapters) go once into
Ray's object store, and a worker fetches them when its own are of another version.

A worker that dies is started again, on any machine with room. The groups it had are played once more; those whose
worker dies a second time are kept as failed. A worker for which there is no room yet joins when a machine does.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from etude.core import recipe as recipes
from etude.core.errors import EtudeError, missing_extra
from etude.protocols import Comparer, Environment, Scorer, Task
from etude.rollout.collect import begin, collect, empty_leaf, make_ready, score
from etude.trajectory import Boundary, Failure, StopReason, Trajectory

RESTARTS = 20  # a worker that has died this often will die again
TRIES = 2


class Worker:
    """What runs in the other process; an asyncio actor, so that its groups share one decoder."""

    def __init__(self, given: Mapping[str, Any]):
        """given: policy, environment, agent and weights as a recipe writes them, or the object itself."""
        parts = {key: _built(shelf, given[key]) for key, shelf in recipes.PARTS.items()}
        self.policy, self.environment = parts["policy"], parts["environment"]
        self.agent, self.weights = parts["agent"], parts["weights"]
        self.fetching = asyncio.Lock()
        self.told: Counter[str] = Counter()

    async def up(self) -> None:
        """Answers once the parts are there."""

    async def play(
        self, task: Task, begun: Trajectory, version: int, stored: Sequence[Any], **how: Any
    ) -> tuple[Trajectory, Counter[str]]:
        """One task's group, and the tokens computed since the last answer.

        stored: the reference to the parameters of `version`, inside a list so that Ray does not fetch it unasked.
        """
        async with self.fetching:
            if version > self.policy.version:  # an earlier step may still be in play when a later one begins
                self._load(await stored[0])
                self.policy.version = version
        # a task of the run's own environment comes without it, for it may live in this process alone
        task = task if task.environment is not None else replace(task, environment=self.environment)
        await collect(self.policy, [task], agent=self.agent, begun=[begun], **how)
        counted = Counter(_counters(self.policy))
        spent, self.told = counted - self.told, counted
        return begun, spent

    def _load(self, stored: bytes) -> None:
        import torch
        from safetensors.torch import load

        if not getattr(self.policy, "prepared", False):
            self.policy.model, self.policy.prepared = self.weights.prepare(self.policy.model), True
        own = dict(self.policy.model.named_parameters())
        with torch.no_grad():
            for name, value in load(stored).items():
                own[name].copy_(value)
        self.policy.changed()


class Workers:
    """The workers of a run, seen from the process that learns.

    policy, environment: those of this process. given: see `Worker`. count: how many workers; those for which the
        cluster has no room are started when it has. Each takes one CPU, and one GPU where the policy is on one.

    The cluster is the one that this process is connected to, or that RAY_ADDRESS names, or a new one on this machine.
    Raises MissingExtra when ray is absent.
    """

    def __init__(self, policy: Any, environment: Environment, given: Mapping[str, Any], count: int):
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise missing_extra("ray", "ray") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody about itself
        if not ray.is_initialized():
            ray.init(logging_level=logging.WARNING)
        self.ray, self.policy, self.environment = ray, policy, environment
        self.version, self.stored, self.stored_bytes = 0, [], 0
        gpus = int(str(getattr(policy, "device", "cpu")).startswith("cuda"))
        actor = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, max_restarts=RESTARTS)
        self.actors = [actor.remote(dict(given)) for _ in range(count)]

    async def play(
        self,
        tasks: Sequence[Task],
        *,
        group: int = 1,
        seed: int = 0,
        name: str = "",
        concurrency: int = 32,
        scorers: Sequence[Scorer | Comparer] = (),
        on_episode: Callable[[], None] = lambda: None,
        **how: Any,
    ) -> list[Trajectory]:
        """As `collect` with this policy; concurrency is of each worker.

        Raises what a worker raises outside an episode, and EtudeError where one cannot be started.
        """
        failed = self.ray.exceptions
        make_ready(self.policy, scorers)
        version, stored = self._store()
        made, tries = begin(tasks, group=group, seed=seed, name=name), Counter[int]()
        units: asyncio.Queue[int] = asyncio.Queue()
        for t in range(len(tasks)):
            units.put_nowait(t)

        def tell(t: int) -> None:
            for _ in made[t].episodes:
                on_episode()

        async def serve(actor: Any) -> None:
            await self._up(actor)
            while True:
                t = await units.get()
                task = replace(tasks[t], environment=None) if tasks[t].environment is self.environment else tasks[t]
                try:
                    made[t], spent = await actor.play.remote(
                        task, made[t], version, stored, concurrency=concurrency, **how
                    )
                except failed.RayTaskError:  # the worker lives, and its code raised
                    raise
                except failed.RayError as error:
                    tries[t] += 1
                    if tries[t] < TRIES:
                        units.put_nowait(t)
                    else:
                        self._fail(made[t], error)  # it was sent as a copy, and is as `begin` made it
                        tell(t)
                    units.task_done()
                    await self._up(actor)
                    continue
                self._count(spent)
                await score(made[t], scorers)
                tell(t)
                units.task_done()

        # no worker holds more than its share, so that late ones find work too
        width = max(1, min(concurrency // group, -(-len(tasks) // len(self.actors))))
        served = [asyncio.create_task(serve(actor)) for _ in range(width) for actor in self.actors]
        finished = asyncio.create_task(units.join())
        try:
            done, _ = await asyncio.wait([finished, *served], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # of one that serves, what went wrong
        finally:
            for task in (finished, *served):
                task.cancel()
        return made

    async def _up(self, actor: Any) -> None:
        """Wait until a worker is there: placed, started, or started again."""
        try:
            await actor.up.options(max_task_retries=-1).remote()
        except self.ray.exceptions.RayError as error:
            raise EtudeError(f"a worker cannot be started; mend what it says, and run again:\n{error}") from error

    def _store(self) -> tuple[int, list[Any]]:
        """The policy's version, and the reference to its moved parameters, put into the object store once."""
        if self.policy.version != self.version:
            from safetensors.torch import save

            moved = [(n, p) for n, p in self.policy.model.named_parameters() if p.requires_grad]
            with self.policy.lock:  # a learner may be at work in a thread
                data = save({name: parameter.detach().cpu().contiguous() for name, parameter in moved})
            self.version, self.stored, self.stored_bytes = self.policy.version, [self.ray.put(data)], len(data)
        return self.version, self.stored

    def _fail(self, trajectory: Trajectory, error: Exception) -> None:
        # of what can take a process down, a model's memory comes first; without a model only the world is left
        boundary = Boundary.MODEL if hasattr(self.policy, "model") else Boundary.ENVIRONMENT
        for episode in trajectory.episodes:
            episode.stop = StopReason.FAILED
            episode.failure = Failure(boundary, f"its worker died {TRIES} times: {type(error).__name__}: {error}")
            episode.leaf = empty_leaf(trajectory)

    def _count(self, spent: Counter[str]) -> None:
        """Workers' tokens are this policy's cost; those of a worker that died are lost with it."""
        for key, value in spent.items():
            setattr(self.policy.generator.counters, key, _counters(self.policy)[key] + value)


def _built(shelf: str, value: Any) -> Any:
    return recipes.build(shelf, value) if isinstance(value, (str, Mapping)) else value


def _counters(policy: Any) -> dict[str, int]:
    generator = getattr(policy, "generator", None)
    return vars(generator.counters) if generator else {}
