"""environments/suite: tasks of several worlds in turn, each played as in its own world."""

import pytest

import etude
from etude.agents.loops import modular
from etude.core.errors import EnvironmentFault, PartError
from etude.environments.suite import suite
from etude.evaluation.plays import alone, play, scripted
from etude.policies.scripted import scripted as policy
from etude.rollout.collect import collect

WORLDS = [{"arcade": {"games": ["stock"], "held": ["nim"], "size": 10}}, {"devices": {"size": 10}}]


def test_worlds_take_turns_and_held_ones_are_apart():
    world = suite(worlds=WORLDS, held=["bandit"])
    assert [t.id.split("/")[0] for t in world.tasks("train")[:4]] == ["arcade", "devices"] * 2
    assert {t.environment.name for t in world.tasks("domains")} == {"bandit"}
    own = suite(worlds=WORLDS).tasks("domains")
    assert {t.domain for t in own if t.id.startswith("arcade")} == {"nim"}
    assert world.reward_range == (0.0, 1.0)
    with pytest.raises(PartError, match="no worlds; name one"):
        suite(worlds=[])
    with pytest.raises(PartError, match="has no split 'tests': none of its worlds has"):
        world.tasks("tests")
    with pytest.raises(PartError, match="did you mean 'arcade'"):
        suite(worlds=["arcad"])


async def test_a_task_goes_as_in_its_own_world():
    world = suite(worlds=WORLDS)
    for task in world.tasks("test")[:4]:
        said = world.solve(task, 0)
        here, there = await alone(world, task, scripted(said)), await alone(task.environment, task, scripted(said))
        assert here.record == there.record
        assert here.reward == 1
    session = world.open()
    with pytest.raises(EnvironmentFault, match="not begun"):
        session.tools  # noqa: B018
    for task in world.tasks("test")[:2]:  # one session, one world after the other
        assert (await play(session, task, scripted(world.solve(task, 0)))).reward == 1


async def test_any_modules_play_any_world_of_it():
    world = suite(worlds=WORLDS)
    agent = modular(modules=["reflection", "planning", "skills"])
    for task in world.tasks("test")[:2]:
        made = await collect(policy(agent.script(world.solve(task, 0))), [task], agent=agent, max_turns=99)
        assert (made[0].episodes[0].failure, made[0].episodes[0].reward) == (None, 1)
        assert made[0].environment == task.environment.name
    assert etude.world("suite").name == "suite/arcade"
