"""environments/archive: what the primitives find and a query by meaning does not."""

import pytest

from etude.core.errors import PartError
from etude.environments import archive
from etude.trajectory import Message


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def all_tasks(world):
    return [task for split in ("train", "dev", "test") for task in world.tasks(split)]


async def found(world, kind):
    """Share of a kind's questions whose whole answer the expert's search showed, in its records; all must earn 1."""
    session, shown, tasks = world.open(), 0, [t for t in all_tasks(world) if t.data["kind"] == kind]
    for task in tasks:
        first = await session.reset(task, 0)
        told = " ".join(message.content for message in first.messages)
        assert not any(text in told for text in world.secrets(task))
        search, last = world.solve(task, 0)
        results = (await session.step(search)).observation.messages
        assert not any(m.content.startswith("error") for m in results)
        text = results[-1].content
        holds = all(name in text for name in task.data["answer"].split(", "))
        shown += holds and (kind == "which" or task.data["record"] in text)
        assert (await session.step(last)).reward == 1.0
    return shown / len(tasks)


async def test_the_primitives_find_everything_and_a_query_only_what_is_plain():
    interact, query = archive(), archive(tools="query")
    assert [await found(interact, kind) for kind in ("plain", "item", "which")] == [1, 1, 1]
    assert await found(query, "plain") > 0.9
    assert await found(query, "item") < 0.3
    assert await found(query, "which") == 0  # a search shows two of three


async def test_half_an_answer_earns_its_f1():
    world = archive()
    task = next(t for t in world.tasks("test") if t.data["kind"] == "which")
    first, second, third = task.data["answer"].split(", ")
    for said, reward in ((f"Answer: {third}, {first}", 0.8), (f"{second}", 0.5), ("", 0.0), ("nobody", 0.0)):
        session = world.open()
        await session.reset(task, 0)
        assert session.current_reward() == 0
        assert (await session.step(Message("assistant", said))).reward == pytest.approx(reward)


def test_splits_share_no_question_and_hold_every_kind():
    splits = [{t.data["question"]: t.data["kind"] for t in archive().tasks(s)} for s in ("train", "dev", "test")]
    assert len({q for split in splits for q in split}) == sum(map(len, splits)) == 48 * 4 + 144 + 32
    assert all(set(split.values()) == {"plain", "item", "which"} for split in splits)
    ours, theirs = archive().tasks("test"), archive(tools="query").tasks("test")
    assert [t.id for t in ours] == [t.id for t in theirs]


def test_settings():
    with pytest.raises(PartError, match=r"no tools 'quary'; did you mean 'query'"):
        archive(tools="quary")
    with pytest.raises(PartError, match="no split 'domains'"):
        archive().tasks("domains")
