"""environments/bandit: what a press pays, and experts that explore or do not."""

import numpy as np
import pytest

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.environments import bandit
from etude.environments.bandit import BUTTONS, best, ucb
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall


def press(*buttons: str) -> list[Message]:
    return [
        Message("assistant", tool_calls=(ToolCall("press", {"button": b}, f"c{n}"),)) for n, b in enumerate(buttons)
    ]


async def play(world, task, messages):
    (played,) = await collect(scripted(messages), [task], agent=native(), max_turns=20)
    return played


def test_ucb_by_hand():
    history = [(0, 1.0), (0, 0.0), (1, 1.0)]
    bonus = np.sqrt(2 * np.log(3))
    assert ucb(history, 3) == pytest.approx([0.5 + bonus / np.sqrt(2), 1 + bonus, np.inf])
    assert best(history, 3, "ucb") == [2]
    assert best(history, 3, "greedy") == [1]
    assert best([], 3, "greedy") == best([], 3, "ucb") == [0, 1, 2]


@pytest.mark.parametrize("noise", ["bernoulli", "gaussian"])
async def test_what_was_paid_is_the_reward_turn_by_turn(noise):
    world = bandit(arms=3, presses=4, noise=noise)
    task = world.tasks("train")[3]
    played = await play(world, task, press("A", "B", "A", "C"))
    pays = task.data["pays"]
    expected = [pays[0][0], pays[1][0], pays[0][1], pays[2][0]]
    assert [n.reward for n in played.nodes if n.sampled] == pytest.approx([p / 4 for p in expected])
    assert played.episodes[0].reward == pytest.approx(np.mean(expected))
    assert [m.content for m in played.messages if m.role == "tool"] == [f"{p:g}" for p in expected]


async def test_no_button_and_several_at_once():
    world = bandit(arms=2, presses=2)
    task = world.tasks("train")[0]
    many = Message(
        "assistant", tool_calls=tuple(ToolCall("press", {"button": b}, b) for b in ["A", "C", "AB", "B", "A"])
    )
    played = await play(world, task, [many])
    told = [m.content for m in played.messages if m.role == "tool"]
    assert [text.startswith("error: no button") for text in told] == [False, True, True, False, False]
    assert told[-1] == "error: no presses are left"
    assert played.episodes[0].reward == pytest.approx((task.data["pays"][0][0] + task.data["pays"][1][0]) / 2)


async def test_an_episode_that_ends_early_keeps_what_it_earned():
    world = bandit(arms=2, presses=4)
    task = world.tasks("train")[0]
    played = await play(world, task, [*press("A"), Message("assistant", "Done.")])
    assert played.episodes[0].reward == pytest.approx(task.data["pays"][0][0] / 4)


async def test_experts_press_as_they_are_called_and_ucb_earns_more():
    earned = {}
    for expert in ("ucb", "greedy"):
        world = bandit(arms=3, presses=120, expert=expert)
        tasks = world.tasks("test")[:20]
        made = await collect(scripted({t.id: world.solve(t, 0) for t in tasks}), tasks, agent=native(), max_turns=120)
        assert all(e.failure is None for t in made for e in t.episodes)
        earned[expert] = np.mean([t.episodes[0].reward for t in made])
    assert earned["ucb"] > earned["greedy"] + 0.02


async def test_it_forks():
    world = bandit(arms=3, presses=5)
    session, other = world.open(), world.open()
    task = world.tasks("dev")[0]
    await session.reset(task, 0)
    for message in press("A", "B"):
        await session.step(message)
    await other.restore(await session.snapshot())
    for message in press("A", "C", "C"):
        assert await session.step(message) == await other.step(message)
    assert session.done


def test_settings():
    assert [t.id for t in bandit().tasks("dev")[:2]] == ["bandit/5-10-bernoulli/dev/0", "bandit/5-10-bernoulli/dev/1"]
    with pytest.raises(PartError, match="arms is 1"):
        bandit(arms=1)
    with pytest.raises(PartError, match="no expert 'ucp'; did you mean 'ucb'"):
        bandit(expert="ucp")
    with pytest.raises(PartError, match="no noise 'gauss'"):
        bandit(noise="gauss")
    with pytest.raises(PartError, match="no split 'domains'"):
        bandit().tasks("domains")
    assert bandit(arms=20).arms == len(BUTTONS)
