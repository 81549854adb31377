"""environments/scaled: domains found, databases that tools alone change, gold that replays, a user with wishes."""

import itertools
import random

import pytest

from etude.core.errors import PartError
from etude.environments import scaled
from etude.environments.functions import ToolError
from etude.environments.scaled import THRESHOLD, Database, Unfit, domains, draw, grammar, pool, populate
from etude.tools.toolgraph import communities
from etude.trajectory import Message, ToolCall

SPLITS = ("train", "dev", "test", "domains", "vertical", "hard")
RECORDS = list(domains())


def some_tasks(count=40):
    world = scaled()
    return [task for split in SPLITS for task in world.tasks(split)[:count]]


async def play(world, task, messages):
    session, step = world.open(), None
    await session.reset(task, 0)
    for message in messages:
        step = await session.step(message)
    assert step is not None
    return session, step


# -- the exact properties --------------------------------------------------------------------------------------------


@pytest.mark.exact(11)
def test_communities_recover_the_planted_domains():
    planted = {tool: record for record in RECORDS for tool in grammar(record)}
    order = [planted[tool] for tool in pool()]
    assert len(order) == len(planted) == 168
    assert order != sorted(order, key=order.index)  # they do not lie together
    parameters = [" ".join([*tool.takes, *tool.gives]) for tool in pool()]
    found = communities(parameters, threshold=THRESHOLD)
    assert {frozenset(pool()[n] for n in some) for some in found} == {frozenset(grammar(r)) for r in RECORDS}
    assert {record: set(domain.tools) for record, domain in domains().items()} == {
        record: set(grammar(record)) for record in RECORDS
    }


def test_domains_share_columns_so_that_something_is_to_be_told_apart():
    columns = [column for domain in domains().values() for column in (*domain.row["columns"], *domain.row["about"])]
    assert len(columns) - len(set(columns)) >= 5


@pytest.mark.exact(11)
def test_replaying_gold_reproduces_the_gold_state():
    for task in some_tasks():
        database = Database(domains()[task.domain], task.data["rows"])
        for calls in task.data["calls"]:
            for name, arguments in calls:
                database.call(name, arguments)
        assert database.digest() == task.data["state"], task.id


@pytest.mark.exact(11)
@pytest.mark.parametrize("record", RECORDS)
def test_a_read_never_changes_the_hash_and_a_write_always_does(record):
    domain = domains()[record]
    rows = populate(domain, random.Random(record))
    for tool in domain.tools:
        database = Database(domain, rows)
        before, start = database.digest(), tool.takes[0]
        for row in rows[start]:
            database.call(tool.name, dict(zip(tool.takes, [row[0], "something new"], strict=False)))
            if not tool.writes:
                assert database.digest() == before
        assert (database.digest() != before) == tool.writes
    assert {tool.writes for tool in domain.tools} == {True, False}


# -- tasks -----------------------------------------------------------------------------------------------------------


async def test_the_expert_earns_one_and_silence_nothing():
    world = scaled()
    for task in some_tasks():
        session, step = await play(world, task, world.solve(task, 0))
        assert (step.done, step.reward) == (True, 1.0), task.id
        assert step.info["scores"]["state"] == 1.0
        assert session.current_reward() == 1.0
        idle = [Message("assistant", "")] * len(task.data["wishes"])
        assert (await play(world, task, idle))[1].reward == 0.0, task.id


def test_walks_are_directed_and_the_user_is_told_no_key_that_the_walk_finds():
    for task in some_tasks():
        tools = {tool.name: tool for tool in domains()[task.domain].tools}
        for calls, wish in zip(task.data["calls"], task.data["wishes"], strict=True):
            for (one, _), (other, arguments) in itertools.pairwise(calls):
                assert tools[one].leads_to(tools[other])
                assert next(iter(arguments.values())) not in wish or tools[one].op == "set", task.id
            assert next(iter(calls[0][1].values())) in wish


def test_splits():
    world = scaled()
    uses = {split: {task.domain for task in world.tasks(split)[:200]} for split in SPLITS}
    assert len(uses["train"]) == 16
    assert uses["vertical"] == uses["hard"] == {"rental"}
    assert uses["domains"] == {"cruise", "painting", "shift", "wine"}
    assert not uses["train"] & (uses["domains"] | uses["hard"])
    assert all(len(task.data["wishes"]) == 1 for task in world.tasks("vertical")[:50])
    assert all(len(task.data["wishes"]) == 2 and task.difficulty >= 3 for task in world.tasks("hard"))
    two = scaled(domains=2)
    assert {task.domain for task in two.tasks("train")[:50]} == {"booking", "visit"}
    assert [t.data for t in two.tasks("domains")] == [t.data for t in world.tasks("domains")]


def test_no_request_is_in_two_splits():
    world = scaled(train=300)
    asked = [{" ".join(task.data["wishes"]) for task in world.tasks(split)} for split in ("train", "dev", "test")]
    assert len(set.union(*asked)) == sum(map(len, asked))


def test_a_wish_that_undoes_another_is_not_drawn():
    domain, rng, drawn = domains()["booking"], random.Random(0), 0
    for _ in range(3000):
        try:
            data = draw(domain, rng, [1, 1])
        except Unfit:
            continue
        drawn += 1
        reads = {tool.name for tool in domain.tools if not tool.writes}
        if Database(domain, data["rows"]).digest() == data["state"]:
            assert {name for calls in data["calls"] for name, _ in calls} <= reads
    assert drawn > 1000


# -- episodes --------------------------------------------------------------------------------------------------------


async def test_the_user_has_the_next_wish_after_each_answer():
    world = scaled()
    task = world.tasks("hard")[0]
    session = world.open()
    told = (await session.reset(task, 0)).messages
    assert [m.content for m in told if m.role == "user"] == task.data["wishes"][:1]
    step = await session.step(Message("assistant", "Yes?"))
    assert [(m.role, m.content) for m in step.observation.messages] == [("user", task.data["wishes"][1])]
    assert (await session.step(Message("assistant", "No."))).done


async def test_a_fork_has_its_own_database():
    world = scaled()
    task = next(t for t in world.tasks("train") if t.skills[0] == "set" and t.difficulty >= 2)
    first, *rest = world.solve(task, 0)
    session, _ = await play(world, task, [first])
    kept, state = await session.snapshot(), session.database.digest()
    for message in rest:
        step = await session.step(message)
    fork = world.open()
    await fork.restore(kept)
    assert fork.database.digest() == state != session.database.digest()
    for message in rest:
        again = await fork.step(message)
    assert again == step


def test_keys_are_never_given_twice():
    domain = domains()["booking"]
    database = Database(domain, populate(domain, random.Random(0)))
    ops = {tool.op: tool.name for tool in domain.tools if tool.table == "booking"}
    guest = database.connection.execute("SELECT guest FROM guest").fetchone()[0]
    keys = []
    for _ in range(12):
        keys.append(database.call(ops["insert"], {"guest": guest, "date": "Mon 3"}))
        database.call(ops["delete"], {"booking": keys[-1]})
    assert len(set(keys)) == 12


def test_an_unknown_key_is_told_in_words():
    domain = domains()["booking"]
    database = Database(domain, populate(domain, random.Random(0)))
    for tool in domain.tools:
        with pytest.raises(ToolError, match=f"no {tool.takes[0]} 'X'; give one"):
            database.call(tool.name, dict.fromkeys(tool.takes, "X"))


async def test_text_that_is_none_is_told_in_words():
    world = scaled()
    task = world.tasks("test")[0]
    tool = domains()[task.domain].tools[0]
    call = ToolCall(tool.name, dict.fromkeys(tool.takes, "\ud800"), "c")
    _, step = await play(world, task, [Message("assistant", "", (call,))])
    assert "half of a character" in step.observation.messages[0].content


def test_settings():
    with pytest.raises(PartError, match="domains is 17; there are 1 to 16"):
        scaled(domains=17)
    with pytest.raises(PartError, match="no split 'easy'"):
        scaled().tasks("easy")
