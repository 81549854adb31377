"""environments/gym: any environment of Gymnasium as a tool, or in arrays."""

import math
import threading

import numpy as np
import pytest

from etude.agents.loops import native
from etude.core.errors import EnvironmentFault, PartError
from etude.environments import gym
from etude.environments.gym import act, drawing, json_schema, of_array, plain, read
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

gymnasium = pytest.importorskip("gymnasium", reason="pip install 'etude[gymnasium]'")
spaces = gymnasium.spaces


async def play(world, task, messages):
    (played,) = await collect(scripted(messages), [task], agent=native(), max_turns=500)
    assert played.episodes[0].failure is None, played.episodes[0].failure
    return played


async def total(world, task):
    return (await play(world, task, world.solve(task, 0))).episodes[0].reward


async def test_planning_walks_the_cliffs_edge_and_delivers_every_passenger():
    assert await total(cliff := gym("CliffWalking-v1"), cliff.tasks("test")[0]) == -13  # Sutton & Barto's optimum
    taxi = gym("Taxi-v4")
    rewards = [await total(taxi, task) for task in taxi.tasks("test")[:20]]
    assert min(rewards) >= 3
    assert len(set(rewards)) > 3, "passengers wait in different places"


async def test_planning_a_slippery_lake_beats_chance_by_far():
    lake = gym("FrozenLake-v1", reward_range=[0, 1])
    planned = [await total(lake, task) for task in lake.tasks("dev")[:60]]
    rng = np.random.default_rng(0)
    walks = [[act(int(a)) for a in rng.integers(0, 4, 100)] for _ in planned]
    drunk = [
        (await play(lake, t, walk)).episodes[0].reward for t, walk in zip(lake.tasks("dev")[:60], walks, strict=True)
    ]
    assert np.mean(planned) > 0.5
    assert np.mean(drunk) < 0.15
    assert lake.reward_range == (0.0, 1.0)


def upright(env, observation):
    return int(observation @ [0.1, 0.3, 5.0, 1.0] > 0)


async def test_an_expert_of_ones_own_and_the_environments_limit():
    pole = gym("CartPole-v1", expert=upright)
    task = pole.tasks("train")[0]
    acts = pole.solve(task, 0)
    session = pole.open()
    first = await session.reset(task, 0)
    assert first.array.shape == (4,)
    steps = [await session.step(message) for message in acts]
    assert len(acts) == sum(s.reward for s in steps) == 500
    assert [s.done for s in steps] == [False] * 499 + [True]
    assert steps[-1].info == {"truncated": True}
    assert steps[0].observation.messages[0].content.startswith("observation: [")
    with pytest.raises(EnvironmentFault, match="no transitions to plan with; give it an expert="):
        gym("CartPole-v1").solve(task, 0)


async def test_arrays_and_words_play_the_same_game():
    pole, pull = gym("CartPole-v1"), gym("Pendulum-v1")
    for world, given in ((pole, np.array([1])), (pull, np.array([5.0]))):  # beyond the bound 2
        task = world.tasks("train")[1]
        spoken, moved = world.open(), world.open()
        await spoken.reset(task, 0)
        await moved.reset(task, 0)
        for _ in range(5):
            a = await moved.step(given)
            b = await spoken.step(act(min(given[0], 2)) if world is pole else act([2.0]))
            assert (a.observation.array == b.observation.array).all()
            assert a.reward == b.reward
    with pytest.raises(EnvironmentFault, match=r"shape \(2,\) is no action of Discrete"):
        of_array(spaces.Discrete(3), np.zeros(2))


async def test_a_wrong_action_is_answered_and_changes_nothing():
    lake = gym("FrozenLake-v1", {"is_slippery": False})
    session = lake.open()
    first = await session.reset(lake.tasks("test")[0], 0)
    step = await session.step(act(7))
    assert step.observation.messages[0].content == "error: act: argument 'action': 7 is greater than the maximum of 3"
    assert (step.done, step.reward) == (False, 0.0)
    assert (step.observation.array == first.array).all()
    assert "0: Move left" in first.messages[0].content
    assert "is_slippery=True" not in first.messages[0].content
    assert first.messages[1].content.startswith("<red S>FFF\nFHFH")


async def test_calls_after_the_end_are_not_run_and_silence_is_forfeited():
    cliff = gym("CliffWalking-v1", forfeit=-200.0, max_steps=3)
    task = cliff.tasks("test")[0]
    silent = await play(cliff, task, [Message("assistant", "No.")])
    assert silent.episodes[0].reward == -200
    cut = await play(cliff, task, [act(0)] * 5)
    assert cut.episodes[0].reward == -3
    lake = gym("FrozenLake-v1", {"is_slippery": False})
    calls = tuple(ToolCall("act", {"action": a}, f"c{n}") for n, a in enumerate([1, 2, 1]))  # down, right: a hole
    session = lake.open()
    await session.reset(lake.tasks("test")[0], 0)
    step = await session.step(Message("assistant", "", calls))
    assert (step.done, step.reward) == (True, 0.0)
    assert "not run" in step.observation.messages[2].content


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize(
    ("id", "actions"), [("FrozenLake-v1", [2, 1, 2]), ("Blackjack-v1", [1]), ("CartPole-v1", [0, 1, 1])]
)
async def test_a_fork_has_the_same_luck(id, actions, copies):
    world, tried = gym(id), 0
    for task in world.tasks("train")[:20]:
        session, other = world.open(), world.open()
        await session.reset(task, 0)
        if not copies:
            session.env.unwrapped.handle = threading.Lock()  # as a simulator in C is: Python cannot copy it
        if (await session.step(act(actions[0]))).done:
            continue
        saved = await session.snapshot()
        assert (saved.state is not None) == copies
        ends = []
        for one in (session, other, other):  # twice from one snapshot: playing on does not change it
            await one.restore(saved) if one is other else None
            steps = []
            for action in actions:
                if not one.done:
                    steps.append(await one.step(act(action)))
            ends.append([(s.observation.messages, s.observation.array.tolist(), s.reward, s.done) for s in steps])
        assert ends[0] == ends[1] == ends[2]
        tried += 1
    assert tried > 3


async def test_the_task_decides_and_the_seed_does_not():
    world = gym("Blackjack-v1")
    hands = {}
    for split in ("train", "test"):
        for task in world.tasks(split)[:20]:
            firsts = [(await world.open().reset(task, seed)).messages[1].content for seed in (0, 1)]
            assert firsts[0] == firsts[1]
            hands[task.id] = firsts[0]
    assert len(hands) == 40
    assert len(set(hands.values())) > 20
    assert next(iter(hands)) == "gym/Blackjack-v1/train/0"


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-1),
        spaces.Box(-1, np.array([1.0, 2.0]), dtype=np.float64),
        spaces.Box(0, 255, (2, 2), np.uint8),
        spaces.MultiDiscrete([2, 5]),
        spaces.MultiBinary(3),
        spaces.Text(4),
        spaces.Tuple([spaces.Discrete(2), spaces.Dict({"force": spaces.Box(-math.inf, math.inf, ())})]),
    ],
    ids=str,
)
def test_every_element_of_a_space_fits_its_schema_and_comes_back_exactly(space):
    from jsonschema import Draft202012Validator

    space.seed(0)
    check = Draft202012Validator(json_schema(space))
    for _ in range(20):
        element = space.sample()
        call = act(element).tool_calls[0].arguments["action"]
        check.validate(call)
        back = read(space, call)
        assert space.contains(back)
        assert plain(back) == plain(element)
    assert not check.is_valid({"wrong": 1})
    assert not check.is_valid(None)


async def test_a_box_with_bounds_of_its_own_refuses_in_words():
    class Two(gymnasium.Env):
        action_space = spaces.Box(-1, np.array([1.0, 2.0], np.float32))
        observation_space = spaces.Discrete(1)

        def reset(self, **_):
            return 0, {}

        def step(self, action):
            return 0, float(action.sum()), False, False, {}

    gymnasium.register("Two-v0", Two)
    world = gym("Two-v0", describe=lambda env, observation: f"see {observation}")
    session = world.open()
    first = await session.reset(world.tasks("dev")[0], 0)
    assert first.messages[1].content == "see 0"
    step = await session.step(act([1.5, 1.5]))
    assert step.observation.messages[0].content.startswith("error: [1.5, 1.5] is not in Box")
    assert (await session.step(act([0.5, 1.5]))).reward == 2.0


def test_settings():
    (task,) = gym("FrozenLake-v1", {"is_slippery": False}).tasks("dev")[3:4]
    assert task.id == "gym/FrozenLake-v1,is_slippery=False/dev/3"
    with pytest.raises(PartError, match="FrozenLak-v1"):
        gym("FrozenLak-v1")
    with pytest.raises(PartError, match="slippery"):
        gym("FrozenLake-v1", {"slippery": 1})
    with pytest.raises(PartError, match="no split 'valid'"):
        gym("CartPole-v1").tasks("valid")
    with pytest.raises(EnvironmentFault, match="no JSON schema"):
        json_schema(spaces.Graph(spaces.Discrete(2), None))
    assert drawing("\x1b[34;1mB\x1b[0m: |\n\n") == "<blue B>: |"
