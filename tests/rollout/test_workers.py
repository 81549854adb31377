"""Rollout workers on a Ray cluster of two nodes on this machine: the same results, whoever plays, dies or joins."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from etude.core.errors import EtudeError, MissingExtra
from etude.protocols import Observation, Sampling, Step, Task
from etude.rollout.collect import collect
from etude.trajectory import Boundary, Message

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None
needs_ray = pytest.mark.skipif(ray is None, reason="ray is not installed; run:  make test-ray")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


class Diary:
    """A world that writes down who plays what; a task with `deadly` kills the process that plays it."""

    name, reward_range = "diary", (0.0, 1.0)

    def __init__(self, file: Path, seconds: float = 0.0, deadly: int = -1):
        self.file, self.seconds, self.deadly = str(file), seconds, deadly

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"diary-{i}", self, split, {"deadly": i == self.deadly}) for i in range(12)]

    def open(self) -> "Diary":
        return self  # it keeps nothing between calls

    tools = ()

    async def reset(self, task: Task, seed: int) -> Observation:
        with open(self.file, "a") as file:
            file.write(f"{task.id} {os.getpid()}\n")
        if task.data["deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self.seconds)
        return Observation((Message("user", f"Say something about {task.id}."),))

    async def step(self, action: Message) -> Step:
        return Step(Observation(), True, 1.0)

    async def close(self) -> None: ...

    def entries(self) -> list[tuple[str, int]]:
        """(task, process) of each beginning of an episode so far."""
        lines = Path(self.file).read_text().splitlines() if Path(self.file).exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one processor each."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def of(cluster):
    """Called with a world, a count, and a policy as a recipe writes it: workers, whose processes end with the test."""
    from etude.core import recipe as recipes
    from etude.policies.scripted import scripted
    from etude.rollout.workers import Workers

    started = []

    def start(world, count: int, policy=None, weights="full") -> Workers:
        spec = policy or scripted([Message("assistant", "Well.")])
        here = recipes.build("policies", spec) if policy else spec
        given = {"policy": spec, "environment": world, "agent": "native", "weights": weights}
        started.append(Workers(here, world, given, count))
        return started[-1]

    yield start
    for actor in (actor for workers in started for actor in workers.actors):
        ray.kill(actor)


async def until(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not happen within two minutes"
        await asyncio.sleep(0.02)


@needs_ray
async def test_only_what_a_killed_worker_had_is_played_again(of, tmp_path: Path):
    world, shown = Diary(tmp_path / "diary", seconds=1.0), []
    workers, tasks = of(world, 2), world.tasks("train")

    async def kill() -> int:
        await until(lambda: len({pid for _, pid in world.entries()}) == 2)  # both are at work
        pid = world.entries()[-1][1]
        os.kill(pid, signal.SIGKILL)
        return pid

    play = workers.play(tasks, group=2, concurrency=4, on_episode=lambda: shown.append(1))
    made, killed = await asyncio.gather(play, kill())
    assert [t.task for t in made] == [task.id for task in tasks]
    assert all(e.failure is None and e.reward == 1.0 for t in made for e in t.episodes)
    assert len(shown) == 24
    begun = Counter(task for task, _ in world.entries())
    again = {task for task, count in begun.items() if count > 2}
    assert again  # it had something
    assert again <= {task for task, pid in world.entries() if pid == killed}  # nothing else came twice
    assert set(begun.values()) <= {2, 4}
    assert len(again) <= 2  # a worker with room for four episodes has two groups of two


@needs_ray
async def test_what_kills_its_worker_twice_is_kept_as_failed(of, tmp_path: Path):
    world = Diary(tmp_path / "diary", deadly=3)
    made = await of(world, 2).play(world.tasks("train"), group=2, concurrency=2)  # one group at a time
    failed = [t.task for t in made if any(e.failure for e in t.episodes)]
    assert failed == ["diary-3"]
    assert len({pid for task, pid in world.entries() if task == "diary-3"}) == 2
    for episode in made[3].episodes:
        assert episode.failure.boundary == Boundary.ENVIRONMENT  # there is no model to blame
        assert episode.reward is None
        assert episode.score is None
        assert "died 2 times" in episode.failure.error
    made[3].check()


@needs_ray
async def test_a_machine_that_joins_gets_work(of, cluster, tmp_path: Path):
    world = Diary(tmp_path / "diary", seconds=1.0)
    workers = of(world, 3)  # one more than there is room for

    async def join() -> None:
        await until(lambda: len({pid for _, pid in world.entries()}) == 2)
        joined.append(cluster.add_node(**NODE))

    joined = []
    made, _ = await asyncio.gather(workers.play(world.tasks("train") * 3, concurrency=1), join())
    assert len({t.id for t in made}) == 36
    assert all(t.episodes[0].reward == 1.0 for t in made)
    assert len({pid for _, pid in world.entries()}) == 3
    cluster.remove_node(joined[0])


@needs_ray
async def test_a_worker_that_cannot_be_built_ends_the_run_with_its_reason(of, tmp_path: Path):
    world = Diary(tmp_path / "diary")
    workers = of(world, 1, weights={"lora": {"rang": 8}})
    with pytest.raises(EtudeError, match="rang"):
        await workers.play(world.tasks("train"))


@needs_ray
@pytest.mark.parametrize("weights", ["full", "lora"])
async def test_workers_play_as_one_process_does_and_follow_the_weights(of, tiny_model_directory, weights):
    import torch

    from etude.core import recipe as recipes
    from etude.scoring.length import length

    world = recipes.build("environments", "lookup")
    policy = {"local": {"model": str(tiny_model_directory), "context": 400}}
    workers = of(world, 2, policy, weights)
    tasks = world.tasks("train")[:3] * 2
    how = {"group": 3, "seed": 5, "sampling": Sampling(8), "max_turns": 2, "scorers": [length(budget=4)]}
    agent = recipes.build("agents/loops", "native")
    here = workers.policy

    async def compare() -> None:
        one = await collect(here, tasks, agent=agent, name="x/", **how)
        sampled = here.generator.counters.sampled
        many = await workers.play(tasks, name="x/", **how)
        assert here.generator.counters.sampled == 2 * sampled - before
        assert [t.id for t in many] == [t.id for t in one]
        for a, b in zip(one, many, strict=True):
            for left, right in zip(a.episodes, b.episodes, strict=True):
                assert left.seed == right.seed
                assert left.score == right.score
                assert a.dialogue(left.leaf) == b.dialogue(right.leaf)
                for n, m in zip(a.path(left.leaf), b.path(right.leaf), strict=True):
                    assert np.array_equal(a.nodes[n].ids_T, b.nodes[m].ids_T)
                    if a.nodes[n].logprob_T is not None:
                        assert np.allclose(a.nodes[n].logprob_T, b.nodes[m].logprob_T, atol=1e-4, equal_nan=True)
                        assert b.nodes[m].version == here.version

    before = 0
    await compare()
    assert workers.stored_bytes == 0  # the base is everywhere already
    here.model, here.prepared = recipes.build("weights", weights).prepare(here.model), True
    moved = [p for p in here.model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in moved:
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    here.changed()
    before = here.generator.counters.sampled
    await compare()
    parameters = 4 * sum(p.numel() for p in moved)
    assert parameters <= workers.stored_bytes < parameters + 20_000  # adapters alone, where only they move


@needs_ray
def test_a_run_with_workers_learns_the_same(cluster, tmp_path: Path, tiny_model_directory, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from etude.apps.run import run

    monkeypatch.setenv("ETUDE_QUIET", "1")
    recipe = tmp_path / "spread.yaml"
    recipe.write_text(
        f"policy: {{local: {{model: {tiny_model_directory}, context: 400}}}}\n"
        "environment: lookup\n"
        "stages:\n"
        "  - collect: {by: policy, episodes: 4, group: 2, max_tokens: 8, max_turns: 2, keep: false}\n"
        "  - practise: {steps: 2, tasks: 2, group: 2, lr: 1e-3, scoring: [{length: {budget: 4}}], max_tokens: 8,"
        " max_turns: 2}\n"
        "evaluate: {tasks: 3, losses: false, max_tokens: 8, max_turns: 2}\n"
    )
    alone = run(str(recipe), out=str(tmp_path / "alone"))
    spread = run(str(recipe), out=str(tmp_path / "spread"), scale={"workers": 2})
    tuned = [load_file(finished.path / "model" / "model.safetensors") for finished in (alone, spread)]
    base = load_file(tiny_model_directory / "model.safetensors")
    assert any(not torch.equal(tuned[0][name], base[name]) for name in base)
    for name in tuned[0]:
        assert torch.allclose(tuned[0][name], tuned[1][name], atol=1e-4), name
    counted = [[row["tokens_sampled"] for row in _cost(finished)] for finished in (alone, spread)]
    assert counted[0] == counted[1]
    assert all(counted[0])


def _cost(finished):
    import json

    return json.loads((finished.path / "state.json").read_text())["cost"].values()


def test_without_ray_the_command_is_named(monkeypatch):
    from etude.rollout.workers import Workers

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[ray\]'"):
        Workers(None, None, {}, 1)  # type: ignore[arg-type]
