"""A run killed with SIGKILL at any moment ends with the same weights, metrics and trajectories as one left alone."""

import hashlib
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from etude.apps.run import run
from etude.trajectory.store import Store

KILLS = 20
RECIPE = """
policy: {local: {model: MODEL, context: 1024}}
environment: desk
environment.difficulty: 1
stages:
  - collect: {by: expert, episodes: 12}
  - collect: {by: policy, episodes: 4, max_tokens: 8, max_turns: 2, keep: false}
  - train: {epochs: 2, batch: 4, lr: 1e-3, checkpoint_seconds: 0}
  - practise: {steps: 6, tasks: 2, group: 2, lr: 1e-3, scoring: [environment, {length: {budget: 8}}],
      max_tokens: 12, max_turns: 2, checkpoint_seconds: 0}
evaluate: {tasks: 3, max_tokens: 8, max_turns: 1, losses: false}
"""


def _start(recipe: Path, out: Path) -> BaseProcess:
    # from a server that has imported all and computed nothing, so that a life starts at once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["etude.apps.run", "etude.policies.local", "etude.training.online", "torch", "peft"])
    process = context.Process(target=run, args=(str(recipe),), kwargs={"out": str(out)})
    process.start()
    return process


def _hash(folder: Path) -> dict[str, str]:
    """What must not differ: weights and metrics to the last bit, and every trajectory but for its seconds."""
    told = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model/model.safetensors", "metrics.jsonl")
    }
    store = Store(folder / "trajectories")
    for key in store.keys():  # noqa: SIM118 (a store is no mapping)
        digest = hashlib.sha256()
        for trajectory in store.read([key]):
            for episode in trajectory.episodes:
                episode.seconds = 0.0
            digest.update(repr((trajectory.id, trajectory.messages, trajectory.episodes)).encode())
            for node in trajectory.nodes:
                digest.update(repr((node.parent, node.version, node.reward, node.scores)).encode())
                for array in (node.ids_T, node.sampled_T, node.logprob_T, node.weight_T):
                    digest.update(b"none" if array is None else array.tobytes())
        told[f"trajectories/{key}"] = digest.hexdigest()
    return told


@pytest.mark.exact(46)
def test_killed_anywhere_ends_the_same(tmp_path: Path, tiny_policy) -> None:
    recipe = tmp_path / "kill.yaml"
    tiny_policy.save(tmp_path / "model")
    recipe.write_text(RECIPE.replace("MODEL", str(tmp_path / "model")))

    undisturbed = _start(recipe, tmp_path / "undisturbed")
    begun = time.monotonic()
    undisturbed.join(300)
    whole = time.monotonic() - begun
    assert undisturbed.exitcode == 0

    rng, killed = random.Random(0), 0
    process = _start(recipe, tmp_path / "killed")
    for _ in range(KILLS):
        process.join(rng.uniform(0, min(whole / 4, 2)))
        if process.exitcode is not None:
            break
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        killed += 1
        process = _start(recipe, tmp_path / "killed")
    process.join(300)
    assert process.exitcode == 0
    assert _hash(tmp_path / "killed") == _hash(tmp_path / "undisturbed")
    assert killed >= KILLS, f"the run ended after {killed} kills"
