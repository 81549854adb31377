"""evaluation/random_agent: what it calls fits the schema, is made of what it was shown, and follows from its seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from etude.evaluation.random_agent import RandomAgent
from etude.trajectory import Message

TEXT = "Order 17 lamps for Ann Lee (ann@lee.org) on 2024-05-06.\nThe orders are A-12 and B-3, at 2.5 each."
SHOWN = Message("user", TEXT)


def tool(**properties):
    return {
        "name": "f",
        "description": "does it",
        "parameters": {"type": "object", "properties": properties, "required": list(properties)},
    }


def drawn(schema, count=40, **more):
    """What many agents give for an argument of this schema."""
    made = []
    for seed in range(count):
        agent = RandomAgent(str(seed))
        agent([], [SHOWN])
        one = tool(x=schema)
        one["parameters"] |= more
        made.append(agent.call(one).arguments)
        assert Draft202012Validator(one["parameters"]).is_valid(made[-1]), made[-1]
    return [arguments["x"] for arguments in made]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 3, "maxLength": 5},
        {"type": "string", "pattern": r"^[A-Z]-\d+$"},
        {"type": "integer", "minimum": 3, "maximum": 20, "multipleOf": 4},
        {"type": "integer", "exclusiveMinimum": 100},
        {"type": "integer", "maximum": -5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
        {"type": "number", "minimum": 0.2, "maximum": 0.7},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
        {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"y": {"const": 1}}, "required": ["y"]}]},
        {"allOf": [{"type": "integer"}, {"minimum": 7}]},
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["a"]},
        {},
        True,
    ],
)
def test_arguments_fit_the_schema(schema):
    assert len({str(value) for value in drawn(schema)}) > 1


def test_a_schema_may_refer_to_itself():
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    values = drawn({"$ref": "#/$defs/node"}, **{"$defs": {"node": node}})
    assert {} in values
    assert any(value.get("next") for value in values)


def test_values_are_those_that_were_shown():
    words = drawn({"type": "string"})
    assert {"ann@lee.org", "A-12", "2024-05-06"} & set(words)
    assert all(word in SHOWN.content for word in words if " " not in word)
    numbers = drawn({"type": "integer"})
    assert 17 in numbers
    assert 2.5 in drawn({"type": "number"})


def test_the_seed_decides():
    def play(seed):
        agent, tools = RandomAgent(seed), [tool(x={"type": "string"}), {**tool(), "name": "g"}]
        return [agent(tools, [SHOWN] if turn == 0 else []) for turn in range(12)]

    assert play("1") == play("1")
    assert play("1") != play("2")
    turns = [message for seed in range(20) for message in play(str(seed))]
    assert {call.name for message in turns for call in message.tool_calls} == {"f", "g"}
    assert any(message.content and not message.tool_calls for message in turns)


def test_without_tools_it_says_what_it_has_read():
    said = {RandomAgent(str(seed))([], [SHOWN]).content for seed in range(30)}
    assert {"Order", "lamps", "Ann", "Lee"} & said
    assert all(text in SHOWN.content or " " in text for text in said)
    assert RandomAgent("")([], []).content


INNER = st.sampled_from(
    [{"type": "string"}, {"type": "integer", "minimum": 0}, {"enum": [1, "two"]}, {"type": "boolean"}, {"type": "null"}]
)
SCHEMAS = st.recursive(
    INNER,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(
            lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["b"]},
            inner,
            inner,
        ),
    ),
    max_leaves=8,
)


@given(SCHEMAS, st.integers())
def test_arguments_fit_any_nested_schema(schema, seed):
    agent = RandomAgent(str(seed))
    agent([], [SHOWN])
    one = tool(x=schema)
    assert Draft202012Validator(one["parameters"]).is_valid(agent.call(one).arguments)
