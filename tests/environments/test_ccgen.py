"""environments/ccgen: a document that its interpreter reads as it was meant, at every setting of the dials."""

import itertools

import pytest

from etude.core.errors import FormatError, PartError
from etude.environments import ccgen
from etude.environments.ccgen import ATTRIBUTES, REQUESTS, interpret, specifications
from etude.trajectory import Message, ToolCall

DIALS = [(1, 6, 3, 1), (1, 1, 1, 1), (3, 4, 4, 2), (2, 6, 2, 2), (1, 3, 4, 1)]
RECORDS = [dict(zip(ATTRIBUTES, values, strict=True)) for values in itertools.product(*ATTRIBUTES.values())]


async def play(world, task, messages):
    session, step = world.open(), None
    shown = await session.reset(task, 0)
    for message in messages:
        step = await session.step(message)
    assert step is not None
    return shown.messages, step


# -- the exact properties --------------------------------------------------------------------------------------------


@pytest.mark.exact(106)
@pytest.mark.parametrize("dials", DIALS)
def test_the_interpreter_agrees_with_every_gold_trajectory(dials):
    world = ccgen(*dials)
    found = specifications(world.text)
    tasks = [task for split in ("train", "dev", "test") for task in world.tasks(split)]
    kinds = set()
    for task in tasks[: None if dials == DIALS[0] else 400]:
        data = task.data
        decides, desk = interpret(found, data["request"], data["record"])
        assert list(decides.conditions) == data["way"], task.id
        assert len(decides.conditions) == task.difficulty
        messages = world.solve(task, 0)
        kinds.add(task.domain)
        if task.domain == "override":  # what is told in its place is another outcome of the very same way
            assert data["told"].endswith(f"So {data['outcome']}.")
            assert data["outcome"] != decides.says
            continue
        assert data["outcome"] == decides.says, task.id
        if task.domain == "plain":
            (call,) = messages[-2].tool_calls
            assert call.arguments == {"outcome": decides.says, "desk": desk}
            assert f"So {decides.says}." in messages[-2].content
        else:
            assert f"So {decides.says}." in messages[-1].content
    assert kinds == {"plain", "override", "referral"}


@pytest.mark.exact(106)
@pytest.mark.parametrize("dials", DIALS)
def test_each_specification_is_in_a_document_of_its_category(dials):
    world = ccgen(*dials)
    found, texts, told = specifications(world.text), list(world.tasks("corpus")), {}
    assert {s.category for s in found} >= {"factual", "behavioural", "conditional"}
    for one in found:
        words = [one.request, *(f"{a} {v}." for a, v in one.conditions), one.says]
        telling = [
            t
            for t in texts
            if t.domain == one.category and all(word.lower() in t.data["says"].lower() for word in words)
        ]
        assert telling, one
        told[one] = len(telling)
        if one.conditions:  # and never with another outcome
            way = " ".join(word.capitalize() for word in [f"{one.request}.", *words[1:-1]])
            assert {t.data["says"].rpartition("So ")[2] for t in texts if f"{way} So" in t.data["says"]} == {
                f"{one.says}."
            }
    for one, other in itertools.product(found, found):  # the longer the way, the more texts
        if 0 < len(one.conditions) < len(other.conditions):
            assert told[one] < told[other]


@pytest.mark.exact(106)
@pytest.mark.parametrize("requests", [1, 3, 6])
async def test_prompt_tokens_are_counted(requests, tiny_policy):
    """Tokens of the system message with the document and with its name alone."""
    tokenizer, counted = tiny_policy.renderer.tokenizer, {}
    for document in (True, False):
        world = ccgen(requests=requests, document=document)
        task = next(t for t in world.tasks("test") if t.domain == "plain")
        (system, _), _ = await play(world, task, world.solve(task, 0))
        counted[document] = len(tokenizer.encode(system.content, add_special_tokens=False))
        assert ("Rule for" in system.content) == document
    saved = 1 - counted[False] / counted[True]
    print(f"{requests} requests: {counted[True]} -> {counted[False]} prompt tokens, {saved:.1%} fewer")
    assert saved > (0.8 if requests == 1 else 0.95)


# -- the document ----------------------------------------------------------------------------------------------------


def test_a_document_by_hand():
    found = specifications(
        "Policy x.\nThe desk for a refund is K4.\nEnd every answer with: Good day.\nRule for a refund:\n"
        "  If the tier is gold:\n    If the age is new: hold.\n    Otherwise: waive.\n  Otherwise: reject."
    )
    assert [(s.category, s.conditions, s.says) for s in found] == [
        ("factual", (), "K4"),
        ("behavioural", (), "Good day."),
        ("complex", (("tier", "gold"), ("age", "new")), "hold"),
        ("complex", (("tier", "gold"), ("age", "old")), "waive"),
        ("conditional", (("tier", "basic"),), "reject"),
    ]
    record = {"tier": "gold", "age": "old", "size": "small", "place": "north"}
    assert interpret(found, "refund", record) == (found[3], "K4")
    with pytest.raises(FormatError, match=r"line 2 of the document is no statement: 'Be nice\.'"):
        specifications("Policy x.\nBe nice.")


@pytest.mark.parametrize("dials", DIALS)
def test_every_record_meets_one_statement_of_each_rule(dials):
    world = ccgen(*dials)
    found = specifications(world.text)
    for request in REQUESTS[: world.requests]:
        depths = {len(interpret(found, request, record)[0].conditions) for record in RECORDS}
        assert depths == {1 + REQUESTS.index(request) % world.depth}


def test_each_dial_makes_its_part_harder():
    size = {dials: len(specifications(ccgen(*dials).text)) for dials in [(1, 2, 2, 1), (1, 4, 2, 1), (1, 2, 4, 1)]}
    assert size[1, 2, 2, 1] == 2 + 1 + 2 + 4 < size[1, 4, 2, 1]
    looks = [max(len(w.solve(t, 0)) for t in w.tasks("test")) for w in (ccgen(databases=n) for n in (1, 2, 3))]
    assert looks == sorted(set(looks))
    short, long = ([len(t.data["prompt"]) for t in ccgen(query=n).tasks("test") if t.domain == "plain"] for n in (1, 2))
    assert max(short) < min(long)


# -- episodes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dials", DIALS)
async def test_the_expert_earns_one_and_silence_nothing(dials):
    world = ccgen(*dials)
    for split in ("train", "dev", "test", "corpus"):
        for task in world.tasks(split)[:60]:
            assert (await play(world, task, world.solve(task, 0)))[1].reward == 1.0, task.id
            assert (await play(world, task, [Message("assistant", "")]))[1].reward == 0.0


async def test_outcome_desk_and_manners_must_all_be_right():
    world = ccgen()
    task = next(t for t in world.tasks("test") if t.domain == "plain")
    look, act, end = world.solve(task, 0)
    (call,) = act.tool_calls
    for name in ("outcome", "desk"):
        wrong = Message("assistant", "", (ToolCall("settle", call.arguments | {name: "X1"}, "c"),))
        assert (await play(world, task, [look, wrong, end]))[1].reward == 0.0
        assert (await play(world, task, [look, wrong, act, end]))[1].reward == 0.0  # done is done
    assert (await play(world, task, [look, act, Message("assistant", "Order settled.")]))[1].reward == 0.0
    assert (await play(world, task, [act, end]))[1].reward == 1.0


async def test_a_changed_rule_is_told_and_holds():
    world = ccgen()
    task = next(t for t in world.tasks("test") if t.domain == "override")
    shown, _ = await play(world, task, world.solve(task, 0))
    assert shown[0].content == f"Policy 1-6-3-1. But now: {task.data['told']}"
    _, desk = interpret(specifications(world.text), task.data["request"], task.data["record"])
    old = interpret(specifications(world.text), task.data["request"], task.data["record"])[0].says
    as_before = ToolCall("settle", {"outcome": old, "desk": desk}, "c")
    messages = [Message("assistant", "", (as_before,)), world.solve(task, 0)[-1]]
    assert (await play(world, task, messages))[1].reward == 0.0


async def test_mistakes_are_told_in_words():
    world = ccgen()
    task = next(t for t in world.tasks("test") if t.domain == "plain")
    call = ToolCall("look", {"database": "order"}, "c")
    _, step = await play(world, task, [Message("assistant", "", (call,))])
    (told,) = step.observation.messages
    assert told.content == "error: no database 'order'; did you mean 'orders'? There are: orders"


def test_no_customer_is_in_two_splits():
    world = ccgen()
    seen = [{(t.data["prompt"], str(t.data["record"])) for t in world.tasks(s)} for s in ("train", "dev", "test")]
    assert len(set.union(*seen)) == sum(map(len, seen))
    shown = ccgen(document=True)
    assert [t.data for t in shown.tasks("test")] == [t.data for t in world.tasks("test")]


def test_settings():
    with pytest.raises(PartError, match="depth is 5; give 1 to 4"):
        ccgen(depth=5)
    with pytest.raises(PartError, match="no split 'easy'"):
        ccgen().tasks("easy")
