"""JSON answers and calls against a schema or against gold."""

import pytest

from etude.core.errors import PartError, ScoreError
from etude.scoring.schema import schema
from etude.trajectory import Message, ToolCall

ORDER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ('{"n": 3}', 1.0),
        ('Here it is:\n```json\n{"n": 3}\n```', 1.0),
        ('```\n{"n": 3}\n```', 1.0),
        ('{"n": "3"}', 0.0),
        ('{"n": 3, "m": 1}', 0.0),
        ("{}", 0.0),
        ('{"n": 3', 0.0),
        ("three", 0.0),
    ],
)
async def test_against_a_schema(told, said, score):
    assert await told(schema(ORDER), said) == score


@pytest.mark.parametrize(
    ("said", "gold", "score"),
    [
        ('{"b": [1, 2], "a": 1.0}', {"a": 1, "b": [1, 2]}, 1.0),
        ('{"a": 1, "b": [1, 2]}', '{"b": [1, 2], "a": 1}', 1.0),
        ('{"a": 1, "b": [2, 1]}', {"a": 1, "b": [1, 2]}, 0.0),
        ("true", ["1"], 0.0),  # equal in Python, not in JSON
        ("2", [1, 2], 1.0),
    ],
)
async def test_against_gold(told, said, gold, score):
    assert await told(schema(), said, answer=gold) == score


async def test_the_last_call(told):
    said = [
        Message("assistant", "", (ToolCall("look", {}), ToolCall("buy", {"n": 2}))),
        Message("assistant", "Done."),
    ]
    want = {"properties": {"name": {"const": "buy"}, "arguments": ORDER}}
    assert await told(schema(want, read="call"), *said) == 1.0
    assert await told(schema(want, read="call"), said[1], answer="x") == 0.0
    assert await told(schema(read="call"), *said, answer={"name": "buy", "arguments": {"n": 2}}) == 1.0
    assert await told(schema(read="call"), *said, answer={"name": "buy", "arguments": {"n": 3}}) == 0.0


async def test_errors(told):
    with pytest.raises(ScoreError, match="no gold answer"):
        await told(schema(), "{}")
    with pytest.raises(PartError, match=r"\$\.type: 'objekt'"):
        schema({"type": "objekt"})
    with pytest.raises(PartError, match="read is 'last'"):
        schema(read="last")
