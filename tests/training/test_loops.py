"""The three loops: they improve a real reward, and a run that was cut goes on to the same numbers."""

import numpy as np
import pytest
import torch

from etude.agents.loops import native
from etude.core.parts import build
from etude.credit import group
from etude.objectives import clipped, likelihood, preference
from etude.protocols import Sampling
from etude.rollout.collect import collect
from etude.training import checkpoint
from etude.training.iterated import iterated
from etude.training.learner import Learner
from etude.training.offline import offline, steps_of
from etude.training.online import give, online, summary
from etude.trajectory import Boundary, Episode, Failure, Trajectory

from ..engine_fixtures import Talk
from .conftest import flat, tree


def even(text: str) -> float:
    """A task of one token: say one whose first letter has an even code."""
    return float(ord(text[0]) % 2 == 0) if text else 0.0


WORLD = Talk(score=even)


def playing(policy, tasks: int = 4, episodes: int = 8):
    async def play(step: int) -> list[Trajectory]:
        chosen = WORLD.tasks("train", tasks)
        return await collect(policy, chosen, agent=native(), group=episodes, sampling=Sampling(max_tokens=1), seed=step)

    return play


async def reward(policy) -> float:
    return summary(await playing(policy, 8, 32)(10_000))["reward"]


# -- they learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 2])
async def test_online_practice_improves_the_reward(policy, updates):
    before, figures = await reward(policy), []
    learner = Learner(policy, clipped(), lr=1e-2)
    await online(
        learner, playing(policy), group, steps=16, updates=updates, on_step=lambda step, f, t: figures.append((step, f))
    )
    assert 0.1 < before < 0.4
    assert await reward(policy) > 0.95
    assert [step for step, _ in figures] == list(range(1, 17))
    assert all(f["episodes"] == 32 and f["failed"] == 0 for _, f in figures)
    assert figures[0][1]["groups_with_gradient"] >= 1
    assert learner.done == 16 * updates


async def test_practice_with_the_reward_upside_down_makes_it_worse(policy):
    before = await reward(policy)
    learner = Learner(policy, clipped(), lr=1e-2)
    await online(learner, playing(policy), lambda score_G: -group(score_G), steps=10)
    assert await reward(policy) < 0.5 * before


async def test_iterating_on_what_succeeded_improves_the_reward(policy):
    before, kept, rounds = await reward(policy), [], []
    learner = Learner(policy, likelihood(), lr=1e-2)
    success = build("curation/success")

    def curate(trajectories):
        chosen = success(trajectories)
        kept.append([e.reward for t in chosen for e in t.episodes])
        return chosen

    await iterated(
        learner,
        playing(policy),
        curate,
        rounds=4,
        epochs=3,
        batch=8,
        on_round=lambda number, figures, trajectories: rounds.append((number, figures)),
    )
    assert all(set(r) == {1.0} for r in kept)
    assert [number for number, _ in rounds] == [1, 2, 3, 4]
    assert await reward(policy) > 0.9 > before + 0.5


async def test_a_round_without_success_trains_nothing(policy):
    learner, before = Learner(policy, likelihood(), lr=1e-2), flat(policy.model)
    await iterated(learner, playing(policy), lambda trajectories: [], rounds=2)
    assert torch.equal(flat(policy.model), before)


# -- they go on where they were ------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["full", "lora"])
async def test_online_practice_resumes_to_the_same_numbers(load_policy, tmp_path, weights):
    async def run(steps: int, start: int = 0):
        policy, figures = load_policy(), []
        learner = Learner(policy, clipped(kl=0.1), weights=weights, lr=1e-2)
        if start:
            checkpoint.load(learner, tmp_path, "half")
        report = lambda step, f, t: figures.append((step, f))  # noqa: E731
        await online(learner, playing(policy), group, steps=steps, start=start, on_step=report)
        return learner, figures

    whole, expected = await run(5)
    half, first = await run(2)
    checkpoint.save(half, tmp_path, "half")
    again, rest = await run(5, start=2)
    assert first + rest == expected
    assert torch.equal(flat(again.policy.model), flat(whole.policy.model))
    assert again.policy.version == whole.policy.version == 5


async def test_iterations_resume_to_the_same_numbers(load_policy, tmp_path):
    async def run(rounds: int, start: int = 0):
        policy, losses = load_policy(), []
        learner = Learner(policy, likelihood(), lr=1e-2)
        if start:
            checkpoint.load(learner, tmp_path, "half")
        await iterated(
            learner,
            playing(policy),
            build("curation/success"),
            rounds=rounds,
            start=start,
            epochs=2,
            batch=5,
            on_step=lambda step, f: losses.append(f["loss"]),
        )
        return learner, losses

    whole, expected = await run(3)
    half, first = await run(1)
    checkpoint.save(half, tmp_path, "half")
    again, rest = await run(3, start=1)
    assert first + rest == expected
    assert torch.equal(flat(again.policy.model), flat(whole.policy.model))


def test_offline_training_resumes_from_any_step(load_policy, dialogues, tmp_path):
    def run(start: int = 0, stop: int = 99):
        learner, figures = Learner(load_policy(), likelihood(), lr=1e-2, schedule="linear", steps=6), []

        def on_step(step: int, f: dict[str, float]) -> None:
            figures.append((step, f))
            if start == 0:
                checkpoint.save(learner, tmp_path, f"{step}", keep=9)
            if step == stop:
                raise KeyboardInterrupt

        if start:
            checkpoint.load(learner, tmp_path, f"{start}")
        offline(learner, dialogues, epochs=2, batch=2, seed=3, start=start, on_step=on_step)
        return flat(learner.policy.model), figures

    end, expected = run()
    assert [step for step, _ in expected] == [1, 2, 3, 4, 5, 6]
    assert [f["epoch"] for _, f in expected] == [1, 1, 1, 2, 2, 2]
    for start in range(1, 6):
        again, rest = run(start)
        assert rest == expected[start:]
        assert torch.equal(again, end)


# -- order and credit ----------------------------------------------------------------------------------------------


class Recorder:
    """In the place of a learner: keeps which rows came in which step."""

    def __init__(self, objective):
        self.objective = objective
        self.steps: list[list[int]] = []

    def step_rows(self, batch) -> dict[str, float]:
        self.steps.append([len(r.ids_P) for r in batch])  # every dialogue has its own length
        return {}


def order(dialogues, objective=likelihood(), **settings) -> list[list[int]]:
    recorder = Recorder(objective)
    offline(recorder, dialogues, **{"epochs": 3, "batch": 4, "seed": 1, **settings})
    return recorder.steps


def test_each_epoch_has_every_path_once_in_an_order_of_its_own(dialogues):
    steps = order(dialogues)
    assert [sorted(len(s) for s in steps[i : i + 2]) for i in (0, 2, 4)] == [[2, 4]] * 3
    assert steps_of(6, epochs=3, batch=4) == len(steps)
    epochs = [steps[i] + steps[i + 1] for i in (0, 2, 4)]
    assert [sorted(e) for e in epochs] == [[9, 11, 12, 14, 15, 27]] * 3
    singly = [length for (length,) in order(dialogues, batch=1)]
    assert len({tuple(singly[at : at + 6]) for at in (0, 6, 12)}) == 3
    assert order(dialogues) == steps
    assert order(dialogues, batch=1) != order(dialogues, batch=1, seed=2)
    for start in range(7):
        assert order(dialogues, start=start) == steps[start:]


def test_the_rows_of_one_episode_stay_together(dialogues):
    shape = {0: (None, 5, False), 1: (0, 4, True), 2: (None, 8, False), 3: (2, 5, True)}
    rewritten = tree(shape, [3], seed=9)  # rows of 9 and 13 tokens
    rewritten.episodes[0].rewritten = [1]
    rewritten.weigh([1.0])
    steps = order([rewritten, dialogues[1], dialogues[5]], epochs=8, batch=1)
    assert sorted(steps) == [[9, 13]] * 8 + [[11]] * 8 + [[14]] * 8


def test_the_episodes_of_a_trajectory_stay_together_where_they_are_compared(dialogues):
    pair = tree({0: (None, 5, False), 1: (0, 4, True), 2: (0, 8, True)}, [1, 2], seed=9)  # rows of 9 and 13 tokens
    pair.weigh([1.0, -1.0])
    data = [pair, dialogues[1], dialogues[5]]
    assert sorted(order(data, preference(), epochs=8, batch=1)) == [[9, 13]] * 8 + [[11]] * 8 + [[14]] * 8
    assert sorted(order(data, epochs=8, batch=1)) == [[9]] * 8 + [[11]] * 8 + [[13]] * 8 + [[14]] * 8


def test_nothing_to_train_is_no_step():
    assert order([]) == []
    assert steps_of(0, epochs=3, batch=4) == 0


def test_a_credit_may_take_the_whole_trajectory(dialogues):
    trajectory = dialogues[0]

    def turns(trajectory: Trajectory, *, scale: float = 2.0) -> None:
        trajectory.nodes[1].weight_T = np.full(4, scale, np.float32)

    give(turns, [trajectory])
    assert trajectory.nodes[1].weight_T.tolist() == [2.0] * 4
    trajectory.episodes[0].score = 0.5
    give(lambda score_G: score_G * 3, [trajectory])
    assert trajectory.nodes[1].weight_T.tolist() == [1.5] * 4


def test_a_credit_may_take_all_trajectories_of_a_step(dialogues):
    taken = []
    give(lambda trajectories: taken.append(trajectories), dialogues)
    assert taken == [dialogues]


def test_failed_episodes_are_counted_apart_and_are_in_no_mean():
    trajectory = Trajectory("t", "task")
    trajectory.episodes = [
        Episode(0, reward=1.0, score=1.0, turns=2),
        Episode(0, reward=0.0, score=0.0, turns=4),
        Episode(0, failure=Failure(Boundary.MODEL, "x"), turns=100),
    ]
    figures = summary([trajectory])
    assert (figures["reward"], figures["turns"], figures["episodes"], figures["failed"]) == (0.5, 3.0, 3, 1)
    assert figures["groups_with_gradient"] == 1
    assert summary([]) == {"episodes": 0, "failed": 0, "groups_with_gradient": 0}
