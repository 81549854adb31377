"""environments/facts: documents and questions about them."""

import pytest

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.environments import facts
from etude.policies import scripted
from etude.rollout.collect import collect


@pytest.mark.parametrize("split", ["train", "questions", "dev", "test"])
async def test_the_expert_is_right_everywhere(split):
    world = facts(places=8)
    tasks = list(world.tasks(split))
    made = await collect(scripted({t.id: world.solve(t, 0) for t in tasks}), tasks, agent=native())
    assert [t.episodes[0].reward for t in made] == [1.0] * len(tasks)


def test_documents_tell_every_answer_and_training_asks_none_of_the_test():
    world = facts()
    texts = " ".join(t.data["says"] for t in world.tasks("train"))
    asked = {
        split: {t.data["prompt"].split(":")[0] for t in world.tasks(split)} for split in ("questions", "dev", "test")
    }
    assert {split: len(prompts) for split, prompts in asked.items()} == {"questions": 80, "dev": 40, "test": 40}
    assert not asked["questions"] & (asked["dev"] | asked["test"])
    assert not asked["dev"] & asked["test"]
    for task in world.tasks("test"):
        question, options = task.data["prompt"].removeprefix("What is ").removesuffix("?").split(": ")
        assert f"{question[0].upper()}{question[1:]} is {task.data['says']}." in texts
        assert len(set(options.replace(" or ", ", ").split(", "))) == 4
        assert task.data["says"] in options


async def test_another_answer_earns_nothing():
    world = facts(places=4)
    task = world.tasks("test")[0]
    session = world.open()
    await session.reset(task, 0)
    assert await session.finish(f" {task.data['says'].upper()}. ") == 1.0
    assert await session.finish("none") == 0.0


def test_settings():
    with pytest.raises(PartError, match="places is 3"):
        facts(places=3)
    with pytest.raises(PartError, match="no split 'domains'"):
        facts().tasks("domains")
