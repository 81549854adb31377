"""environments/babyai: what is seen is told rightly, and the suite's bot fulfils every mission."""

import re
from collections import Counter

import numpy as np
import pytest

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.environments import babyai
from etude.environments.babyai import ACTIONS, PAPER, begun, playable, solved, touched, view
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

pytest.importorskip("minigrid", reason="pip install 'etude[babyai]'")


def do(*actions):
    return [Message("assistant", tool_calls=(ToolCall(a, {}, f"c{n}"),)) for n, a in enumerate(actions)]


async def play(world, task, messages):
    (played,) = await collect(scripted(messages), [task], agent=native(), max_turns=2000)
    assert played.episodes[0].failure is None, played.episodes[0].failure
    return played.episodes[0].reward


@pytest.mark.parametrize("level", ["GoToLocal", "PutNextLocal", "PickupLoc", "MiniBossLevel", "BlockedUnlockPickup"])
async def test_the_bot_earns_1_silence_and_chance_do_not(level):
    world, rng = babyai(level), np.random.default_rng(0)
    tasks = world.tasks("test")[:6]
    assert [await play(world, t, world.solve(t, 0)) for t in tasks] == [1.0] * 6
    assert [await play(world, t, [Message("assistant", "done")]) for t in tasks] == [0.0] * 6
    short = [await play(world, t, [*world.solve(t, 0)[:-1], Message("assistant", "done")]) for t in tasks]
    assert short == [0.0] * 6
    walks = [do(*rng.choice(list(ACTIONS), 10)) for _ in tasks]
    assert sum([await play(world, t, [*w, Message("assistant", "")]) for t, w in zip(tasks, walks, strict=True)]) <= 3


def room(*things, at=(3, 5), facing="up", carrying=None):
    """An empty room of 6 x 6 free cells, seen from x, y; y grows downwards."""
    from minigrid.core.grid import Grid

    env = begun("GoToLocal", 0)
    env.grid = Grid(8, 8)
    env.grid.wall_rect(0, 0, 8, 8)
    for thing, x, y in things:
        env.grid.set(x, y, thing)
    env.agent_pos, env.agent_dir, env.carrying = at, ["right", "down", "left", "up"].index(facing), carrying
    return env


def test_what_is_seen_by_hand():
    from minigrid.core.world_object import Ball, Door, Key

    ball = (Ball("red"), 4, 3)  # two up, one right of the agent
    ahead = "You see a red ball 2 steps ahead and 1 to the right."
    walls = "Walls: 5 steps ahead, 3 steps to the left."  # a fourth cell to the right is out of view
    assert view(room(ball)) == f"{ahead} {walls} You carry nothing."
    left = "You see a red ball 1 step ahead and 2 to the left. Walls: 4 steps ahead, 2 steps to the right."
    assert view(room(ball, facing="right")) == f"{left} You carry nothing."
    assert view(room(ball, facing="down")).startswith("You see nothing but the floor. Walls: 2 steps ahead,")
    hidden = view(room((Door("grey", is_locked=True), 3, 4), (Key("blue"), 3, 2), carrying=Ball("green")))
    assert hidden.startswith("You see a locked grey door 1 step ahead")
    assert "Walls: 3 steps to the left. You carry a green ball." in hidden
    assert "an open grey door" in view(room((Door("grey", is_open=True), 3, 4)))


async def test_only_what_changed_nothing_says_so():
    world = babyai("GoToObjMaze")
    session = world.open()
    await session.reset(world.tasks("test")[0], 0)
    session.env = room(at=(1, 1))
    for action, changed in [("toggle", False), ("drop", False), ("turn_right", True), ("move_forward", True)]:
        (step,) = [await session.step(m) for m in do(action)]
        assert step.observation.messages[0].content.startswith("Nothing changed.") != changed, action
    state = touched(session.env)
    await session.step(do("move_forward")[0])
    assert touched(session.env) != state


async def test_forks_share_nothing():
    world = babyai("BlockedUnlockPickup")
    task = world.tasks("dev")[1]
    acts = world.solve(task, 0)
    session, other = world.open(), world.open()
    await session.reset(task, 0)
    for message in acts[:10]:
        await session.step(message)
    saved = await session.snapshot()
    for _ in range(2):
        await other.restore(saved)
        ends = [await other.step(message) for message in acts[10:]]
        assert (ends[-1].done, ends[-1].reward) == (True, 1.0)
    assert [await session.step(message) for message in acts[10:]] == ends


def test_a_grid_on_which_the_bot_is_lost_is_passed_over():
    assert solved(begun("UnlockToUnlock", 102)) == []
    assert solved(begun("UnlockToUnlock", 100))


def test_tasks_are_fixed_and_splits_share_no_seed():
    world = babyai(["GoToLocal", "PutNextLocal"], size=40)
    assert [t.id for t in world.tasks("dev")] == [f"babyai/{world.levels[i % 2]}/dev/{i // 2}" for i in range(4)]
    seeds = Counter((t.domain, t.data["seed"]) for s in ("train", "dev", "test") for t in world.tasks(s))
    assert set(seeds.values()) == {1}
    again = babyai("PutNextLocal").tasks("dev")[1]
    assert again.data == world.tasks("dev")[3].data
    assert again.difficulty == len(again.data["solution"])
    assert {"pick_up", "drop"} <= set(again.skills)


async def test_the_mission_and_the_limit_are_told_and_the_limit_ends_it():
    world = babyai("GoToObjS4")
    session = world.open()
    task = world.tasks("test")[0]
    first = await session.reset(task, 0)
    told = re.search(r"Your mission: go to .*\. It ends .* after (\d+) actions", first.messages[0].content)
    assert told
    assert told[1] == "16"
    steps = [await session.step(m) for m in do(*["drop"] * 16)]
    assert [s.done for s in steps] == [False] * 15 + [True]
    assert steps[-1].reward == 0.0


def test_settings():
    assert babyai().levels == PAPER
    assert set(PAPER) < set(playable())
    with pytest.raises(PartError, match="no level 'GoToLokal'; did you mean 'GoToLocal"):
        babyai("GoToLokal")
    with pytest.raises(PartError, match="no level 'KeyInBox'"):
        babyai(["KeyInBox"])
    with pytest.raises(PartError, match="no split 'valid'"):
        babyai().tasks("valid")
