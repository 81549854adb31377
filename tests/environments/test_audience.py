"""environments/audience: users who stay, go and sway each other, and what the agent may know of them."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest

from etude.core.errors import PartError
from etude.environments.audience import TOPICS, User, audience
from etude.trajectory import Message, ToolCall

POOR = [Message("assistant", tool_calls=(ToolCall("recommend", {"query": "nothing"}),))] * 6


async def play(world, task, messages, seed=0):
    """What was shown, and the room at the end."""
    session = world.open()
    shown = [m.content for m in (await session.reset(task, seed)).messages]
    for message in messages:
        step = await session.step(message)
        shown += [m.content for m in step.observation.messages]
        if step.done:
            break
    return shown, session.room


@pytest.mark.exact(172)
@pytest.mark.parametrize("users", [1, 4])
async def test_a_seed_gives_the_same_dialogue_again(users):
    worlds = [audience(users=users, expert="wander") for _ in range(2)]
    for one, two in zip(*(world.tasks("test")[:40] for world in worlds), strict=True):
        said = worlds[0].solve(one, 3)
        assert said == worlds[1].solve(two, 3)
        assert (await play(worlds[0], one, said, 3))[0] == (await play(worlds[1], two, said, 3))[0]


@pytest.mark.exact(172)
async def test_a_users_retention_is_the_number_of_its_turns_in_the_log():
    world, counts = audience(users=3), set()
    for task in world.tasks("test")[:60]:
        shown, room = await play(world, task, world.solve(task, 0))
        for user in room.users:
            turns = sum(line.startswith(f"{user.name}: ") for text in shown[2:] for line in text.splitlines())
            assert user.rounds == turns
            assert user.clicks == sum(
                line.count(": click") for text in shown[2:] for line in text.splitlines() if line.startswith(user.name)
            )
            counts.add(turns)
    assert counts == {1, 2, 3, 4, 5, 6}


@pytest.mark.exact(172)
async def test_endless_patience_never_leaves():
    for patience, stay in ((math.inf, True), (1.0, False)):
        world = audience(patience=patience)
        rooms = [(await play(world, task, POOR))[1] for task in world.tasks("test")[:60]]
        assert any(user.clicks < 6 for room in rooms for user in room.users)
        assert all(room.users[0].rounds == 6 for room in rooms) == stay
        assert any(user.gone for room in rooms for user in room.users) != stay


@pytest.mark.exact(172)
async def test_nothing_that_is_shown_holds_an_interest():
    world = audience(users=2)
    for task in world.tasks("test")[:60]:
        shown, _ = await play(world, task, world.solve(task, 0))
        secrets = world.secrets(task)
        assert len(secrets) == 2 * len(TOPICS)
        assert not any(secret in text for secret in secrets for text in shown)
        other = copy.deepcopy(task.data)
        for user in other["users"]:  # other interests that lead to the same clicks and skips cannot be told apart
            user["interest"] = {topic: value + 1e-6 for topic, value in user["interest"].items()}
        assert (await play(world, replace(task, data=other), world.solve(task, 0)))[0] == shown
        for user in other["users"]:  # before anything is clicked, none can
            user["interest"] = dict.fromkeys(TOPICS, 0.0)
        assert (await play(world, replace(task, data=other), []))[0] == shown[:2]


@pytest.mark.exact(172)
async def test_without_influence_each_user_does_what_it_does_alone():
    swayed = 0
    for influence in (False, True):
        world = audience(users=4, influence=influence)
        for task in world.tasks("test")[:60]:
            said = world.solve(task, 0)
            _, together = await play(world, task, said)
            for n, user in enumerate(together.users):
                data = task.data | {"users": [task.data["users"][n]], "follows": {}}
                _, alone = await play(world, replace(task, data=data), said)
                if influence:
                    swayed += vars(user) != vars(alone.users[0])
                else:
                    assert vars(user) == vars(alone.users[0])
    assert swayed > 60


def test_a_user_by_hand():
    interest = dict.fromkeys(TOPICS, 0.1) | {"jazz": 0.8, "tea": 0.7}
    user = User("Ana", interest, ["jazz"], 2.0, [0.0] * 9)
    assert user.see(["new jazz", "old jazz", "new cats"]) == (
        ["jazz", "jazz"],
        ["new jazz: click", "old jazz: click", "new cats: skip, not for me"],
    )
    assert user.interest["jazz"] == pytest.approx(0.84)
    assert user.appeal("jazz") == pytest.approx(0.49)
    assert user.see(["odd jazz", "odd cats", "odd cars"])[1] == [
        "odd jazz: skip, again", "odd cats: skip, not for me", "odd cars: skip, not for me", "less cats, more tea",
    ]  # fmt: skip
    assert (user.patience, user.rounds, user.clicks) == (1.0, 2, 2)
    assert user.see(["odd cats", "odd cars", "odd maths"])[1][-1] == "bye"
    assert user.gone


async def test_who_follows_instructions_keeps_users_longer_and_without_them_nobody_can():
    stayed = {}
    for expert, instructions in (("follow", True), ("follow", False), ("history", True)):
        world = audience(expert=expert, instructions=instructions)
        rooms = [(await play(world, task, world.solve(task, 0))) for task in world.tasks("test")]
        stayed[expert, instructions] = np.mean([room.users[0].rounds for _, room in rooms])
        assert instructions == any("less " in text for shown, _ in rooms for text in shown)
    assert stayed["follow", True] > stayed["history", True] + 0.5
    assert stayed["follow", False] == stayed["history", True]


async def test_what_was_earned_is_kept_and_silence_earns_nothing():
    world = audience()
    task = world.tasks("test")[0]
    session = world.open()
    await session.reset(task, 0)
    await session.step(world.solve(task, 0)[0])
    user = session.room.users[0]
    assert session.current_reward() == pytest.approx((1 / 6 + user.clicks / 18) / 2)
    assert (await session.step(Message("assistant", "Bye."))).reward == session.current_reward()
    await session.reset(task, 0)
    assert (await session.step(Message("assistant", ""))).reward == 0


def test_settings():
    with pytest.raises(PartError, match="no expert 'folow'; did you mean 'follow'"):
        audience(expert="folow")
    with pytest.raises(PartError, match="users is 7; give 1 to 6"):
        audience(users=7)
    with pytest.raises(PartError, match="no split 'domains'"):
        audience().tasks("domains")
