"""The leaderboard's own data and checker, reached through the bridge."""

import importlib.util
import re
import sys

import pytest

from etude.core.errors import EnvironmentFault, MissingExtra, PartError
from etude.core.parts import build
from etude.environments.bfcl import CATEGORIES, bfcl, json_schema
from etude.trajectory import Message, ToolCall

HERE = importlib.util.find_spec("bfcl_eval") is not None
needs_data = pytest.mark.skipif(not HERE, reason="pip install --no-deps bfcl-eval==2026.3.23")
KEYED = [c for c in CATEGORIES if "relevance" not in c]
SIZES = {
    "simple_python": 400,
    "simple_java": 100,
    "simple_javascript": 50,
    "multiple": 200,
    "parallel": 200,
    "parallel_multiple": 200,
    "irrelevance": 240,
    "live_simple": 258,
    "live_multiple": 1053,
    "live_parallel": 16,
    "live_parallel_multiple": 24,
    "live_irrelevance": 884,
    "live_relevance": 16,
}
CONTRADICTORY = {
    f"bfcl/{i}"
    for i in (
        "live_simple_106-63-0",
        "live_simple_112-68-0",
        "live_multiple_862-181-3",
        "live_multiple_964-207-0",
        "simple_java_36",
        "simple_java_65",
    )
}


async def play(world, task, message):
    session = world.open()
    await session.reset(task, 0)
    step = await session.step(message)
    assert step.done
    return step


@needs_data
@pytest.mark.parametrize("category", KEYED)
async def test_the_answer_key_scores_1_and_silence_0(category):
    world = bfcl(category)
    tasks = world.tasks("test")
    assert len(tasks) == SIZES[category]
    missed = {t.id for t in tasks if (await play(world, t, world.solve(t, 0)[0])).reward != 1.0}
    assert missed == CONTRADICTORY & {t.id for t in tasks}
    assert all([(await play(world, t, Message("assistant", "Done."))).reward == 0.0 for t in tasks[:50]])


def spoiled(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "x" + value[::-1]  # of source text, the checker finds what it wants anywhere inside
    if isinstance(value, (int, float)):
        return value + 12345
    return [*value, "more"] if isinstance(value, list) else {**value, "surplus": 1}


@needs_data
@pytest.mark.parametrize("category", KEYED)
async def test_one_wrong_value_scores_0_and_says_so(category):
    world, tried = bfcl(category), 0
    for task in world.tasks("test")[:60]:
        calls = world.solve(task, 0)[0].tool_calls
        if task.id in CONTRADICTORY or not calls[0].arguments:
            continue
        name, value = next(iter(calls[0].arguments.items()))
        wrong = ToolCall(calls[0].name, {**calls[0].arguments, name: spoiled(value)})
        step = await play(world, task, Message("assistant", tool_calls=(wrong, *calls[1:])))
        assert step.reward == 0.0, (task.id, wrong)
        assert step.info["error"]
        tried += 1
    assert tried >= min(50, SIZES[category] - 2)


@needs_data
@pytest.mark.parametrize("category", KEYED)
@pytest.mark.parametrize("arguments", ['{"', [1], None])
async def test_arguments_that_are_no_object_score_0_and_never_raise(category, arguments):
    world = bfcl(category)
    for task in world.tasks("test")[:60]:
        calls = [ToolCall(call.name, arguments) for message in world.solve(task, 0) for call in message.tool_calls]
        step = await play(world, task, Message("assistant", tool_calls=tuple(calls)))
        assert step.reward == 0.0
        assert "no JSON object" in step.info["error"][0]


@needs_data
async def test_another_order_of_parallel_calls_is_right_and_a_surplus_call_is_not():
    world = bfcl("parallel")
    task = world.tasks("test")[0]
    calls = world.solve(task, 0)[0].tool_calls
    assert len(calls) > 1
    assert (await play(world, task, Message("assistant", tool_calls=calls[::-1]))).reward == 1.0
    assert (await play(world, task, Message("assistant", tool_calls=(*calls, calls[0])))).reward == 0.0


@needs_data
@pytest.mark.parametrize(("category", "silent", "calling"), [("irrelevance", 1.0, 0.0), ("live_relevance", 0.0, 1.0)])
async def test_relevance_asks_only_whether_a_call_was_made(category, silent, calling):
    world = bfcl(category)
    for task in world.tasks("test")[:50]:
        call = ToolCall(task.data["functions"][0]["name"], {})
        assert (await play(world, task, Message("assistant", "No function fits."))).reward == silent
        assert (await play(world, task, Message("assistant", tool_calls=(call,)))).reward == calling
    if category == "live_relevance":
        with pytest.raises(EnvironmentFault, match="no answer key"):
            world.solve(world.tasks("test")[0], 0)


@needs_data
def test_task_ids_are_fixed():
    tasks = bfcl("multiple", limit=3).tasks("test")
    assert [t.id for t in tasks] == ["bfcl/multiple_0", "bfcl/multiple_1", "bfcl/multiple_2"]
    assert bfcl("live_multiple").tasks("test")[1000].id == "bfcl/live_multiple_1000-231-0"
    for category in CATEGORIES:
        ids = [t.id for t in bfcl(category).tasks("test")]
        assert len(set(ids)) == SIZES[category]


@needs_data
async def test_what_the_agent_sees_is_the_question_and_json_schema_tools_under_names_it_can_emit():
    def types(schema):
        yield schema["type"]
        for below in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
            yield from types(below)

    dotted = 0
    for category in CATEGORIES:
        world = bfcl(category)
        for task in world.tasks("test"):
            session = world.open()
            first = await session.reset(task, 0)
            assert first.messages[-1].role == "user"
            for tool in session.tools:
                assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool["name"])
                assert tool["parameters"]["type"] == "object"
                assert set(types(tool["parameters"])) <= {"object", "array", "string", "integer", "number", "boolean"}
                dotted += tool["name"] == "math_factorial"
    assert dotted  # math.factorial in the data


@needs_data
def test_types_become_those_of_json_schema():
    declared = {
        "type": "dict",
        "properties": {
            "speed": {"type": "float", "description": "km/h", "optional": True},
            "corner": {"type": "tuple", "items": {"type": "float"}},
            "who": {"type": "any"},
        },
        "required": ["speed"],
    }
    assert json_schema(declared) == {
        "type": "object",
        "properties": {
            "speed": {"type": "number", "description": "km/h"},
            "corner": {"type": "array", "items": {"type": "number"}},
            "who": {"type": "string"},
        },
        "required": ["speed"],
    }


@needs_data
async def test_source_text_is_asked_for_as_the_leaderboard_asks():
    world = bfcl("simple_java")
    session = world.open()
    await session.reset(world.tasks("test")[22], 0)
    (tool,) = session.tools
    assert tool["description"].endswith("Note that the provided function is in Java 8 SDK syntax.")
    ids = tool["parameters"]["properties"]["ids"]
    assert ids["type"] == "string"
    assert ids["description"].endswith(
        "This is Java ArrayList type parameter in string representation. The list elements are of type long; they are"
        " not in string representation."
    )


@needs_data
@pytest.mark.parametrize(("text", "right"), [("2L", 0.0), ("2", 1.0)])
async def test_source_text_is_read_by_the_rules_of_its_language(text, right):
    world = bfcl("simple_java")
    task = world.tasks("test")[22]
    name = task.data["functions"][0]["name"]
    ids = "new ArrayList<Long>() {{ add(101L); add(202L); add(303L); }}"
    call = ToolCall(name, {"ids": ids, "newStatus": text})
    assert (await play(world, task, Message("assistant", tool_calls=(call,)))).reward == right


@needs_data
async def test_a_snapshot_brings_the_question_back():
    world = bfcl(limit=2)
    task, other = world.tasks("test")
    session, second = world.open(), world.open()
    await session.reset(task, 0)
    saved = await session.snapshot()
    gold = world.solve(task, 0)[0]
    assert (await session.step(gold)).reward == 1.0
    with pytest.raises(EnvironmentFault, match="not waiting"):
        await session.step(gold)
    await second.reset(other, 0)
    await second.restore(saved)
    assert second.tools == session.tools
    assert (await second.step(gold)).reward == 1.0


@needs_data
def test_it_is_not_practised_on():
    with pytest.raises(EnvironmentFault, match="only 'test'"):
        bfcl().tasks("train")


def test_an_unknown_category_names_the_closest():
    with pytest.raises(PartError, match="did you mean 'parallel'"):
        build("environments/bfcl", category="paralel")


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install --no-deps bfcl-eval==2026\.3\.23$"):
        bfcl()


@needs_data
async def test_nothing_is_left_in_place_of_the_model_table():
    world = bfcl(limit=1)
    await play(world, world.tasks("test")[0], Message("assistant", "?"))
    assert "bfcl_eval.constants.model_config" not in sys.modules
    assert "bfcl_eval.eval_checker.ast_eval.ast_checker" in sys.modules
