"""Desk: solvable at every difficulty, unsolvable by anything less, the same in every run."""

import asyncio
import dataclasses
import itertools
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.core import parts
from etude.core.errors import PartError
from etude.environments import desk
from etude.environments.desk import SHAPES, load_domains
from etude.protocols import Task
from etude.trajectory import Message, ToolCall

SPLITS = ("train", "dev", "test", "domains")
LEVELS = range(1, 7)
ANSWER = Message("assistant", "Done.")


def say(*calls: tuple[str, dict]) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall(name, arguments) for name, arguments in calls))


async def reward(world: desk, task: Task, messages: list[Message]) -> float:
    session = world.open()
    await session.reset(task, 0)
    for message in messages:
        step = await session.step(message)
    assert step.done
    assert step.reward is not None
    return step.reward


def writes(task: Task) -> list[int]:
    tools = load_domains()[task.domain].tools
    return [n for n, (name, _) in enumerate(task.data["calls"]) if tools[name]["op"] not in ("find", "get")]


# -- the judge -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", SPLITS)
async def test_expert_reaches_one_and_anything_less_does_not(level, split):
    world = desk(difficulty=level)
    for task in world.tasks(split)[:50]:
        expert = world.solve(task, 0)
        assert sum(len(m.tool_calls) for m in expert) == level == task.difficulty
        assert await reward(world, task, list(expert)) == 1.0
        assert await reward(world, task, [ANSWER]) == 0.0
        assert writes(task), task.id
        for n in writes(task):
            assert await reward(world, task, expert[:n] + expert[n + 1 :]) == 0.0, (task.id, n)


async def test_one_wrong_or_additional_write_loses_everything():
    world = desk(difficulty=3)
    for task in world.tasks("test")[:60]:
        expert = world.solve(task, 0)
        domain = load_domains()[task.domain]
        touched = {arguments.get(domain.entity) for _, arguments in task.data["calls"]}
        n = writes(task)[0]
        name, arguments = task.data["calls"][n]
        strangers = {key: r for key, r in task.data["records"].items() if key not in touched}
        stranger = next(key for key, r in strangers.items() if not set(arguments.values()) & set(r.values()))
        elsewhere = say((name, {**arguments, domain.entity: stranger}))
        assert await reward(world, task, [*expert[:n], elsewhere, *expert[n + 1 :]]) == 0.0
        assert await reward(world, task, [*expert[:-1], elsewhere, ANSWER]) == 0.0


async def test_words_earn_nothing_and_cost_nothing():
    world = desk(difficulty=2)
    task = world.tasks("train")[0]
    expert = world.solve(task, 0)
    assert await reward(world, task, [expert[-1]]) == 0.0
    assert await reward(world, task, [*expert[:-1], Message("assistant", "I did nothing.")]) == 1.0


async def test_random_calls_earn_next_to_nothing():
    rng = random.Random(0)
    for level in (1, 3):
        world, total = desk(difficulty=level), 0.0
        for task in world.tasks("train")[:200]:
            domain, records = load_domains()[task.domain], task.data["records"]
            calls = []
            for _ in range(level):
                name = rng.choice(list(domain.tools))
                row = domain.tools[name]
                values = domain.fields.get(row.get("field"), row.get("values", [""]))
                given = {"find": {domain.customer: "Ana Ruiz"}, "get": {}, "status": {}}.get(row["op"])
                given = {domain.argument(name): rng.choice(values)} if given is None else given
                key = {} if row["op"] == "find" else {domain.entity: rng.choice(list(records))}
                calls.append((name, {**key, **given}))
            total += await reward(world, task, [*(say(c) for c in calls), ANSWER])
        assert total / 200 < 0.04


# -- the tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_what_must_be_read_is_not_in_the_request(level):
    for task in desk(difficulty=level).tasks("train")[:200]:
        domain, records, request = load_domains()[task.domain], task.data["records"], task.data["request"]
        known = set(re.findall(r"[\w-]+", request))
        for name, arguments in task.data["calls"]:
            if domain.tools[name]["op"] == "find":
                person = arguments[domain.customer]
                assert person in request
                found = {key for key, record in records.items() if record[domain.customer] == person}
                assert not found & known
                known |= found
            else:
                assert arguments[domain.entity] in known
        if "copy" in task.skills:
            assert "the same" in request


def test_the_written_rules_decide_what_the_expert_does():
    """Read the rules from the prompt, as an agent would, and hold every read record against them."""
    seen = dict.fromkeys(("kept", "refused", "under", "over", "first", "other"), 0)
    for level, split in [(2, "train"), (4, "train"), (5, "domains")]:
        for task in desk(difficulty=level).tasks(split)[:200]:
            domain = load_domains()[task.domain]
            rules = re.split(r"(?<=\.) ", task.data["system"])[1:]
            for (reader, read), (name, arguments) in itertools.pairwise(task.data["calls"]):
                if domain.tools[reader]["op"] != "get" or read[domain.entity] != arguments.get(domain.entity):
                    continue
                record, row = task.data["records"][read[domain.entity]], domain.tools[name]
                if row["op"] == "pay":
                    limit = [int(n) for rule in rules for n in re.findall(r"is at most (\d+)", rule)]
                    assert arguments["amount"] == min([record[row["field"]], *limit]), task.id
                    outcome = "over" if [record[row["field"]]] > limit else "under"
                elif guards := [rule for rule in rules if rule.startswith("Only ")]:
                    may, verb = re.findall(rf"Only (.+) {domain.plural} can (.+); otherwise ", guards[0])[0]
                    kept = f"be {row.get('done') or row.get('to')}"
                    if row["op"] == "set":
                        kept = f"get another {row['field']}"
                    outcome = "kept" if record["status"] in may.split(" or ") else "refused"
                    assert (verb == kept) == (outcome == "kept"), task.id
                    assert outcome == "kept" or arguments[domain.argument(name)] in guards[0]
                else:
                    first, other = next(r for r in rules if "all others" in r).rstrip(".").split(", all others")
                    outcome = "first" if f"{record['status']} {domain.plural}" in first else "other"
                    assert arguments[domain.argument(name)] == (first if outcome == "first" else other).split()[-1]
                seen[outcome] += 1
    assert min(seen.values()) >= 10, seen


def test_nobody_moves_a_record_and_cancels_it():
    for task in [task for level in (2, 4, 6) for task in desk(difficulty=level).tasks("train")[:300]]:
        domain, touched = load_domains()[task.domain], {}
        for name, arguments in task.data["calls"]:
            touched.setdefault(arguments.get(domain.entity), set()).add(domain.tools[name]["op"])
        assert not any({"status", "set"} <= ops for ops in touched.values()), task.data["request"]


def test_one_hotel_task_by_hand():
    """An id promises a task: a change of rows or of the draw changes tasks that people have results for."""
    task = desk(difficulty=4).tasks("test")[5]
    assert (task.id, task.domain) == ("desk/4/test/5", "hotel")
    assert task.data["system"] == (
        "You work at the front desk of a hotel. A refund is at most 40, even if the price is higher. "
        "Escalate waiting bookings with code LATE, all others with code PAID."
    )
    assert task.data["request"] == "My name is Vera Tate. Can you escalate my booking and refund 30 on it, please?"
    assert task.data["calls"] == [
        ("find_bookings", {"guest": "Vera Tate"}),
        ("get_booking", {"booking": "B-497"}),
        ("escalate", {"booking": "B-497", "code": "LATE"}),
        ("refund_booking", {"booking": "B-497", "amount": 30}),
    ]
    assert task.data["answer"] == "Booking B-497 is escalated and refunded."
    assert task.skills == ("find", "get", "flag", "pay", "code")


def test_the_same_id_is_the_same_task_in_any_order():
    one, other = desk(difficulty="1-3"), desk(difficulty="1-3")
    forwards = [one.tasks("dev")[i] for i in range(20)]
    backwards = [other.tasks("dev")[i] for i in range(19, -1, -1)][::-1]
    assert forwards == backwards
    assert [t.data for t in forwards] == [t.data for t in backwards]
    assert forwards[3].id == "desk/1-3/dev/3"
    assert {t.difficulty for t in one.tasks("train")[:50]} == {1.0, 2.0, 3.0}
    assert json.loads(json.dumps(forwards[0].data))["request"] == forwards[0].data["request"]
    assert desk(domains=8).tasks("train")[0].id == "desk/2@8/train/0"


@pytest.mark.parametrize("difficulty", [1, 2, "1-3"])
def test_no_request_is_in_two_splits(difficulty):
    world = desk(difficulty=difficulty)
    asked = {split: {(t.domain, t.data["request"]) for t in world.tasks(split)} for split in SPLITS}
    for split in ("dev", "test", "domains"):
        assert not asked["train"] & asked[split]
        assert len(asked[split]) > 0.9 * len(world.tasks(split))
    assert not asked["dev"] & asked["test"]
    held_out = {name for name, domain in load_domains().items() if domain.held_out}
    assert {domain for domain, _ in asked["domains"]} == held_out
    assert {domain for domain, _ in asked["train"]} == set(load_domains()) - held_out


def test_held_out_domains_share_no_name_with_held_in_ones():
    domains = load_domains().values()
    held_in, held_out = ([d for d in domains if d.held_out == flag] for flag in (False, True))
    assert (len(held_in), len(held_out)) == (24, 8)
    for names in (lambda d: set(d.tools), lambda d: {d.entity, d.plural}, lambda d: {d.id.split("0")[0]}):
        seen = set().union(*(names(d) for d in held_in))
        unseen = [names(d) for d in held_out]
        assert not seen & set().union(*unseen)
        assert sum(map(len, unseen)) == len(set().union(*unseen)), "and none with one another"


@pytest.mark.parametrize("domain", load_domains().values(), ids=lambda d: d.name)
def test_rows_are_well_formed(domain):
    assert 4 <= len(domain.tools) <= 6
    assert len(domain.named("find")) == len(domain.named("get")) == 1
    assert {"id", "status", "notes", domain.entity, domain.customer}.isdisjoint(domain.fields)
    for name, row in domain.tools.items():
        schema = domain.schema(name)
        assert 1 <= len(schema["parameters"]["properties"]) <= 2
        assert len(schema["description"].split()) <= 9
        assert all("{it}" in ask and ("{value}" in ask) == (row["op"] != "status") for ask in row.get("ask", []))
        if row["op"] == "status":
            assert row["to"] not in domain.statuses
        if row["op"] in ("set", "pay"):
            assert len(domain.fields[row["field"]]) >= 4
        if row["op"] in ("note", "flag"):
            assert len(set(row["values"])) == 4
        if row["op"] == "flag":
            assert all(ask.index("{it}") < ask.index("{value}") for ask in row["ask"])
            assert row["field"] not in domain.fields


def test_prompts_are_short():
    for level, longest in zip(LEVELS, (16, 24, 26, 32, 32, 36), strict=True):
        for task in [*desk(difficulty=level).tasks("train")[:200], *desk(difficulty=level).tasks("domains")[:100]]:
            assert len(task.data["system"].split()) <= 48
            assert len(task.data["request"].split()) <= longest, task.data["request"]
            assert 6 <= len(task.data["records"]) <= 10
            assert len(json.dumps(next(iter(task.data["records"].values())))) <= 140


def test_shapes_cost_what_they_say():
    for level, shapes in SHAPES.items():
        for shape in shapes:
            cost = 0
            for goal in shape:
                records = 2 if goal.by == "both" else 1
                cost += (goal.by != "id") + records * (goal.reads + goal.writes)
                cost += {"": 0, "id": 1, "customer": 2}[goal.copies]
            assert cost == level


# -- sessions ------------------------------------------------------------------------------------------------------


async def play(world: desk, task: Task) -> list[str]:
    session = world.open()
    await session.reset(task, 0)
    said = []
    for message in world.solve(task, 0):
        await asyncio.sleep(0)
        step = await session.step(message)
        said += [m.content for m in step.observation.messages] + [str(step.reward)]
    return said


async def test_sixty_four_interleaved_sessions_do_not_disturb_one_another():
    world = desk(difficulty=4)
    tasks = world.sample(16, seed=0) * 4
    alone = [await play(world, task) for task in tasks]
    assert await asyncio.gather(*(play(world, task) for task in tasks)) == alone


@pytest.mark.parametrize("native", [True, False], ids=["copy", "replay"])
async def test_forks_are_exact_at_every_step(native):
    world = desk(difficulty=5)
    for task in world.sample(10, seed=1):
        expert = world.solve(task, 0)
        session = world.open()
        await session.reset(task, 0)
        first = await session.snapshot()
        for n, message in enumerate(expert):
            snapshot = await session.snapshot()
            fork = world.open()
            await fork.restore(snapshot if native else dataclasses.replace(snapshot, state=None))
            assert fork.records == session.records
            assert fork.records is not session.records
            assert fork.actions == session.actions
            rest = [await fork.step(m) for m in expert[n:]]
            assert rest[-1].reward == 1.0
            await fork.restore(snapshot)
            assert fork.records == session.records, "playing a fork must not change the snapshot"
            assert (await session.step(message)) == rest[0]
        assert session.records != task.data["records"]
        await session.restore(first)
        assert session.records == task.data["records"]
        assert (session.actions, session.done) == ([], False)


async def test_reading_hands_out_no_handle_on_the_records():
    world = desk(difficulty=2)
    task = next(t for t in world.tasks("train") if t.skills[0] == "get")
    before = json.dumps(task.data)
    await play(world, task)
    assert json.dumps(task.data) == before


async def test_current_reward_and_the_step_limit():
    world = desk(difficulty=1, max_steps=2)
    task = world.tasks("train")[0]
    session = world.open()
    await session.reset(task, 0)
    assert session.current_reward() == 0.0
    await session.step(world.solve(task, 0)[0])
    assert session.current_reward() == 1.0
    reader = load_domains()[task.domain].named("get")[0]
    key = next(iter(task.data["records"]))
    step = await session.step(say((reader, {load_domains()[task.domain].entity: key})))
    assert (step.done, step.reward, step.info) == (True, 1.0, {"limit": "max_steps"})


async def test_hostile_calls_are_answered_in_words_and_change_nothing():
    world = desk(difficulty=2)
    task = next(t for t in world.tasks("train") if t.domain == "hotel")
    session = world.open()
    await session.reset(task, 0)
    key = next(iter(task.data["records"]))
    cases = [
        (("cancel_bookings", {"booking": key}), "did you mean 'cancel_booking'"),
        (("cancel_booking", {"id": key}), "takes no argument 'id'; "),
        (("cancel_booking", {}), "needs 'booking'"),
        (("cancel_booking", {"booking": "B-000"}), "no booking 'B-000'; an id looks like B-"),
        (("cancel_booking", {"booking": None}), "expected string"),
        (("cancel_booking", {"booking": {"$ne": 1}}), "expected string"),
        (("move_booking", {"booking": key, "date": "Mon 33"}), "did you mean 'Mon 3'?"),
        (("refund_booking", {"booking": key, "amount": "all"}), "expected integer"),
        (("refund_booking", {"booking": key, "amount": -5}), "expected more than 0"),
        (("escalate", {"booking": key, "code": "VOP"}), "did you mean 'VIP'?"),
        (("__class__", {}), "no tool '__class__'"),
    ]
    step = await session.step(say(*(case[0] for case in cases)))
    for (_, said), message in zip(cases, step.observation.messages, strict=True):
        assert message.content.startswith("error: ")
        assert said in message.content
    assert session.records == task.data["records"]
    step = await session.step(say(("find_bookings", {"guest": "Nobody"})))
    assert step.observation.messages[0].content == "[]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
HOTEL = next(task for task in desk(difficulty=2).tasks("train") if task.domain == "hotel")


@given(
    st.sampled_from([*load_domains()["hotel"].tools, "", "get"]),
    st.dictionaries(st.sampled_from(["booking", "guest", "date", "amount", "code", "x"]), json_values, max_size=3)
    | json_values,
)
@settings(max_examples=150, deadline=None)
async def test_no_call_whatever_raises(name, arguments):
    session = desk().open()
    await session.reset(HOTEL, 0)
    step = await session.step(say((name, arguments)))
    assert step.observation.messages[0].content
    assert session.records == HOTEL.data["records"]


def test_the_expert_may_write_in_parallel():
    world = desk(difficulty=2, parallel=True)
    tasks = world.tasks("train")[:50]
    turns = [[len(m.tool_calls) for m in world.solve(task, 0)] for task in tasks]
    assert [2, 0] in turns
    assert [1, 1, 0] in turns
    for task, turn in zip(tasks, turns, strict=True):
        assert (turn == [2, 0]) == (len(writes(task)) == 2)


# -- the part ------------------------------------------------------------------------------------------------------


def test_desk_is_a_part():
    assert parts.find("environments")["desk"].title.startswith("Service desks")
    assert parts.schema("environments/desk")["difficulty"].help.startswith("Calls in the expert's solution")
    assert parts.build("environments/desk", difficulty=3).tasks("test")[0].difficulty == 3.0
    assert len(desk(train=5).tasks("train")) == 5
    assert [t.id for t in desk().sample(4, seed=0)] == [t.id for t in desk().sample(4, seed=0)]


@pytest.mark.parametrize("difficulty", [0, 7, "3-1", "a", "1-9", 2.5])
def test_a_bad_setting_is_named(difficulty):
    with pytest.raises(PartError, match="difficulty is"):
        desk(difficulty=difficulty)


def test_a_bad_split_or_count_is_named():
    with pytest.raises(PartError, match="domains is 99"):
        desk(domains=99)
    with pytest.raises(PartError, match="no split 'domain'; did you mean 'domains'"):
        desk().tasks("domain")


@pytest.mark.exact(24)
@pytest.mark.parametrize("difficulty", range(1, 7))
def test_the_solver_needs_as_many_calls_as_the_difficulty_says(difficulty):
    world = desk(difficulty=difficulty)
    for task in world.tasks("train")[:5]:
        assert sum(len(m.tool_calls) for m in world.solve(task, 0)) == difficulty
