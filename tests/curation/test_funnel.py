"""curation/funnel: what each stage drops, and that recovered errors pass."""

import dataclasses

import pytest

from etude import curation
from etude.agents.loops import native
from etude.core.errors import RecipeError
from etude.curation.funnel import fate, repetitive
from etude.environments import scaled
from etude.environments.scaled import domains
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, StopReason, ToolCall

TASKS = 60


async def play(change):
    """The expert's episodes with messages changed by `change(task, messages)`; none where it gives None."""
    world = scaled()
    said = {t.id: change(t, list(world.solve(t, 0))) for t in world.tasks("train")[:TASKS]}
    tasks = [t for t in world.tasks("train")[:TASKS] if said[t.id] is not None]
    return await collect(scripted(said), tasks, agent=native(), max_turns=20)


def fates(trajectories):
    return [fate(t, t.episodes[0]) for t in trajectories]


def say(call):
    return Message("assistant", "", (call,))


def writes(task):
    return bool({"set", "delete", "insert"} & set(task.skills))


@pytest.mark.exact(11)
async def test_all_of_the_oracle_passes():
    made = await play(lambda task, messages: messages)
    assert fates(made) == [""] * TASKS
    assert curation.funnel(made) == made
    assert {("calls" in t.episodes[0].scores) for t in made} == {True, False}  # both kinds of tasks are there


def without(task, messages, n):
    return messages[:n] + messages[n + 1 :]


def another_value(task, messages, n):
    (call,) = messages[n].tool_calls
    wrong = {name: value if k == 0 else "another" for k, (name, value) in enumerate(call.arguments.items())}
    return [*messages[:n], say(dataclasses.replace(call, arguments=wrong)), *messages[n + 1 :]]


def one_more(task, messages, n):
    owner = domains()[task.domain].row["owner"]
    (insert,) = [tool for tool in domains()[task.domain].tools if tool.op == "insert"]
    arguments = {owner: task.data["rows"][owner][0][0], insert.takes[1]: "any"}
    return [say(ToolCall(insert.name, arguments, "more")), *messages]


@pytest.mark.exact(11)
@pytest.mark.parametrize("wrong", [without, another_value, one_more])
async def test_nothing_with_a_wrong_final_state_passes(wrong):
    def change(task, messages):
        ops = {tool.name: tool.op for tool in domains()[task.domain].tools}
        taken = ("set", "insert") if wrong is another_value else ("set", "insert", "delete")
        last = max((n for n, m in enumerate(messages) for c in m.tool_calls if ops[c.name] in taken), default=None)
        return None if last is None else wrong(task, messages, last)

    made = await play(change)
    assert len(made) > 30
    assert fates(made) == ["state"] * len(made)
    assert curation.funnel(made) == []


async def test_where_gold_only_reads_the_calls_must_be_its():
    made = await play(lambda task, messages: None if writes(task) else [m for m in messages if not m.tool_calls])
    assert len(made) > 5
    assert fates(made) == ["calls"] * len(made)
    twice = await play(lambda task, messages: None if writes(task) else [messages[0], *messages])
    assert fates(twice) == ["calls"] * len(twice)


async def test_a_call_that_failed_and_was_mended_passes_and_one_that_no_tool_takes_does_not():
    def slip(name, value):
        def change(task, messages):
            (call,) = messages[0].tool_calls
            wrong = dataclasses.replace(call, arguments={name or next(iter(call.arguments)): value, **rest(call)})
            return [say(wrong), *messages]

        return change

    def rest(call):
        return dict(list(call.arguments.items())[1:])

    made = await play(slip("", "nobody"))
    assert all(any(m.content.startswith("error: no ") for m in t.messages) for t in made)
    assert curation.funnel(made) == made
    assert set(fates(await play(slip("whom", "nobody")))) == {"validity"}


async def test_episodes_that_repeat_themselves_or_were_cut_are_invalid():
    words = "the booking is done and so " * 3
    made = await play(lambda task, messages: [*messages[:-1], Message("assistant", words)])
    assert set(fates(made)) == {"validity"}
    assert repetitive(words, 6, 2)
    assert not repetitive(words, 6, 3)
    (cut, *_) = await play(lambda task, messages: messages)
    cut.episodes[0].stop = StopReason.TOKENS
    assert curation.funnel([cut]) == []


async def test_a_world_that_tells_no_state_is_an_error():
    made = await play(lambda task, messages: messages)
    for t in made:
        t.episodes[0].scores = {}
    with pytest.raises(RecipeError, match="no episode has the score 'state'"):
        curation.funnel(made)
