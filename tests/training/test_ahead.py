"""Playing ahead of training: what overlaps, how old tokens may be, and that nothing is left behind."""

import asyncio
import threading
import time

import pytest

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.credit import group
from etude.objectives import clipped
from etude.protocols import Sampling
from etude.rollout.collect import collect
from etude.rollout.generator import ATTENTION
from etude.training.learner import Learner
from etude.training.online import online

from ..engine_fixtures import Talk, TalkSession
from .test_loops import playing, reward

WAIT = 30  # seconds after which something that should come is taken not to come


class Gated(Talk):
    """A world that answers an agent's second turn only when `open_` says so."""

    def __init__(self, open_=lambda: True):
        super().__init__(turns=2, score=lambda text: float(len(text) % 2))
        self.open_, self.begun, self.answered = open_, 0, threading.Event()

    def open(self) -> "GatedSession":
        self.begun += 1
        return GatedSession(self)


class GatedSession(TalkSession):
    async def step(self, action):
        while not self.world.open_():
            await asyncio.sleep(0.001)
        self.world.answered.set()
        return await super().step(action)


def rounds(policy, worlds):
    async def play(step: int):
        tasks, sampling = worlds[step].tasks("train", 2), Sampling(max_tokens=6)
        return await collect(policy, tasks, agent=native(), group=4, sampling=sampling, seed=step)

    return play


def learner_of(policy, **settings) -> Learner:
    return Learner(policy, clipped(), **{"lr": 1e-2, "correction": "truncate", **settings})


async def nothing_left() -> bool:
    """Whether no task but this one is there, once the decoder has seen that nobody waits for it."""
    for _ in range(200):
        await asyncio.sleep(0)
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_round_is_played_while_the_one_before_is_trained(policy):
    learner, trained, answered, threads = learner_of(policy), [], [], set()
    # round k is answered only once training on round k - 1 has begun, which ends only when round k was answered
    worlds = [Gated(lambda k=k: len(trained) >= k) for k in range(4)]
    step = learner.step

    def train(trajectories, updates):
        trained.append(len(trajectories))
        threads.add(threading.current_thread())
        answered.append(len(trained) == len(worlds) or worlds[len(trained)].answered.wait(WAIT))
        return step(trajectories, updates)

    learner.step = train
    await online(learner, rounds(policy, worlds), group, steps=4, ahead=1)
    assert answered == [True] * 4
    assert threading.main_thread() not in threads
    assert learner.done == 4
    assert await nothing_left()


@pytest.mark.parametrize(("ahead", "updates"), [(1, 1), (2, 1), (1, 2)])
async def test_no_token_is_older_than_the_bound(policy, ahead, updates):
    learner, ages, seen = learner_of(policy), [], []
    worlds = [Gated() for _ in range(6)]

    def on_weighed(step, trajectories):
        ages.append(learner.policy.version - min(n.version for t in trajectories for n in t.nodes if n.sampled))

    def on_step(step, figures, trajectories):
        seen.append((step, figures["staleness"]))
        assert {"sampler_kl", "sampler_gap_max", "sampler_log_ratio", "sampler_truncated"} <= figures.keys()
        begun = [world.begun > 0 for world in worlds]
        assert begun == [k < step + ahead for k in range(6)]

    play = rounds(policy, worlds)
    settings = {"steps": 6, "ahead": ahead, "updates": updates}
    await online(learner, play, group, on_weighed=on_weighed, on_step=on_step, **settings)
    assert seen == list(enumerate(ages, start=1))
    assert max(ages) == ages[ahead] == ahead * updates  # that one was begun before the first step
    assert ages[0] == 0


async def test_a_step_is_never_made_in_the_midst_of_a_decoding_step(policy):
    learner, decoded, attention = learner_of(policy), [], []
    move, counters = learner._move, policy.generator.counters

    def moving(gradients):
        before = counters.steps
        time.sleep(0.02)  # long enough for many decoding steps
        norm = move(gradients)
        decoded.append(counters.steps - before)
        return norm

    def computing(*_):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.002)
            attention.append(policy.model.config._attn_implementation)

    learner._move = moving
    policy.model.get_decoder().register_forward_pre_hook(computing)
    trained = []
    learner.step, step = lambda *given: trained.append(1) or step(*given), learner.step
    worlds = [Gated(lambda k=k: len(trained) >= k) for k in range(5)]  # so that each has turns left in training
    await online(learner, rounds(policy, worlds), group, steps=5, ahead=1)
    assert decoded == [0] * 5
    assert len(attention) >= 5
    assert ATTENTION not in attention


async def test_practice_ahead_improves_the_reward(policy):
    before = await reward(policy)
    await online(learner_of(policy), playing(policy), group, steps=20, ahead=1)
    assert before < 0.4
    assert await reward(policy) > 0.95


# -- when it ends before its time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["play", "on_begin", "on_weighed", "on_step"])
async def test_a_failure_surfaces_as_it_is_and_leaves_nothing_running(policy, where):
    learner, worlds = learner_of(policy), [Gated(), Gated(lambda: False), Gated(lambda: False)]
    play = rounds(policy, worlds)

    async def failing(step: int):
        if where == "play" and step == 2:
            raise ZeroDivisionError(where)
        return await play(step)

    async def on_begin(step: int):
        if where == "on_begin" and step == 1:
            raise ZeroDivisionError(where)

    def fail(name: str):
        if where == name:
            raise ZeroDivisionError(where)

    with pytest.raises(ZeroDivisionError, match=where):
        await online(
            learner,
            failing,
            group,
            steps=3,
            ahead=2,
            on_begin=on_begin,
            on_weighed=lambda *_: fail("on_weighed"),
            on_step=lambda *_: fail("on_step"),
        )
    assert learner.done == {"play": 0, "on_begin": 1, "on_weighed": 0, "on_step": 1}[where]
    assert [world.begun == world.closed for world in worlds] == [True] * 3
    assert await nothing_left()
    assert policy.generator.live == 0


async def test_cancelling_waits_for_the_step_in_training(policy):
    learner, worlds = learner_of(policy), [Gated(), Gated(lambda: False)]
    begun, go_on, step = threading.Event(), threading.Event(), learner.step

    def train(trajectories, updates):
        begun.set()
        go_on.wait(WAIT)
        return step(trajectories, updates)

    learner.step = train
    practice = asyncio.create_task(online(learner, rounds(policy, worlds), group, steps=2, ahead=1))
    assert await asyncio.to_thread(begun.wait, WAIT)
    practice.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    ended = practice.done(), learner.done
    go_on.set()
    assert ended == (False, 0)
    with pytest.raises(asyncio.CancelledError):
        await practice
    assert learner.done == 1
    assert worlds[1].begun == worlds[1].closed > 0
    assert await nothing_left()


async def test_what_older_weights_sampled_is_not_trained_on_uncorrected(policy):
    for correction in ("none", "recompute"):
        with pytest.raises(PartError, match=f"ahead=1 trains on .* correction='{correction}'"):
            await online(learner_of(policy, correction=correction), playing(policy), group, steps=1, ahead=1)
