"""Somebody else in the world: whose words are context, come again in a fork, and are never trained."""

import itertools

import numpy as np
import pytest

from etude.agents.loops.native import native
from etude.environments.base import Speaker, Tasks, ToolSession
from etude.policies.scripted import scripted
from etude.protocols import Action, Observation, Sampling, Task
from etude.rollout.collect import collect
from etude.trajectory import Message

HELLO = Message("assistant", "Hello.")


class Shop(Tasks):
    """A customer speaks first, and answers twice."""

    name, reward_range = "shop", (0.0, 1.0)

    def __init__(self, customer):
        self.customer, self.speakers = customer, [customer]

    def tasks(self, split):
        return [Task("shop/0", self, split)]

    def open(self):
        return ShopSession(self)


class ShopSession(ToolSession):
    def __init__(self, world):
        super().__init__()
        self.world = world

    async def begin(self, task, seed):
        self.tools = []
        policy, sampling = self.world.customer, Sampling(max_tokens=12, temperature=1.0)
        self.speaker = Speaker(policy, "a cat", task=task.id, seed=seed, said=self.said, sampling=sampling)
        return Observation((Message("user", (await self.speaker.answer(Message("user", "Yes?"))).message.content),))

    async def reply(self, said):
        if len(self.actions) == 3:
            return None
        return [Message("user", (await self.speaker.answer(Message("user", said))).message.content)]

    async def finish(self, answer):
        return 1.0


class Counting:
    """Says another number each time that it is asked; keeps the dialogue it was shown."""

    name, version = "counting", 0

    def __init__(self):
        self.numbers, self.shown, self.seeds = itertools.count(), [], []

    async def act(self, trajectory, leaf, *, sampling, seed):
        self.shown.append([(m.role, m.content) for m in trajectory.dialogue(leaf)])
        self.seeds.append(seed)
        return leaf, Action(Message("assistant", str(next(self.numbers))))


async def test_each_side_sees_the_other_as_its_user():
    customer = Counting()
    (t,) = await collect(scripted([HELLO] * 3), Shop(customer).tasks("test"), agent=native())
    assert customer.shown[-1] == [
        ("system", "a cat"), ("user", "Yes?"), ("assistant", "0"),
        ("user", "Hello."), ("assistant", "1"), ("user", "Hello."),
    ]  # fmt: skip
    dialogue = [(m.role, m.content) for m in t.dialogue(t.episodes[0].leaf)]
    assert dialogue == [
        ("user" if n % 2 == 0 else "assistant", f"{n // 2}" if n % 2 == 0 else "Hello.") for n in range(6)
    ]
    assert len(set(customer.seeds)) == 3


async def test_a_fork_hears_again_what_was_said_before_it_and_asks_only_for_more():
    customer = Counting()
    world = Shop(customer)
    session, fork = world.open(), world.open()
    await session.reset(world.tasks("test")[0], 0)
    await session.step(HELLO)
    saved = await session.snapshot()
    assert (await session.step(HELLO)).observation.messages[0].content == "2"
    await fork.restore(saved)
    assert len(customer.shown) == 3
    assert (await fork.step(HELLO)).observation.messages[0].content == "3"
    assert customer.shown[3] == customer.shown[2]
    assert customer.seeds[3] == customer.seeds[2]
    await fork.reset(world.tasks("test")[0], 0)
    assert [action.message.content for action in fork.speaker.said] == ["4"]  # a reset is no fork


async def test_a_speaker_that_is_a_local_model_gets_its_decoder_and_is_not_trained(load_policy):
    agent, customer = load_policy(), load_policy()
    customer.generator = None
    (t,) = await collect(
        agent, Shop(customer).tasks("test"), agent=native(), group=2, sampling=Sampling(max_tokens=8), seed=3
    )
    assert [e.failure for e in t.episodes] == [None, None]
    for node in t.nodes:
        trained = node.sampled_T is not None and bool(node.sampled_T.any())
        assert trained == (t.messages[node.message].role == "assistant")
    assert len({t.messages[n.message].content for n in t.nodes if n.parent is None}) == 1  # the same first words


async def test_its_own_tokens_are_never_made_again_from_text(policy):
    speaker = Speaker(policy, "a cat", sampling=Sampling(max_tokens=12, temperature=1.0), seed=5)
    first = await speaker.answer(Message("user", "the cat"))
    ids = speaker.dialogue.ids_P(speaker.leaf)
    await speaker.answer(Message("user", "sat"))
    assert len(first.ids_T) > 1
    assert np.array_equal(ids[-len(first.ids_T) :], first.ids_T)
    assert np.array_equal(speaker.dialogue.ids_P(speaker.leaf)[: len(ids)], ids)


@pytest.mark.parametrize(("seed", "same"), [(5, True), (6, False)])
async def test_its_seed_decides_what_it_says(policy, seed, same):
    sampling = Sampling(max_tokens=12, temperature=1.0)
    said = []
    for one in (5, seed):
        speaker = Speaker(policy, "a cat", sampling=sampling, seed=one)
        said.append([(await speaker.answer(Message("user", text))).message.content for text in ("the", "mat")])
    assert (said[0] == said[1]) == same
