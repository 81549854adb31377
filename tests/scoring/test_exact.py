"""Exact match: what counts as the same."""

import pytest

from etude.core.errors import ScoreError
from etude.scoring.exact import exact


@pytest.mark.parametrize(
    ("said", "gold", "score"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1.0),
        ("Eiffel Tower, Paris", "Eiffel Tower", 0.0),
        ("Lyon", ["Paris", "Lyon"], 1.0),
        ("Rome", ["Paris", "Lyon"], 0.0),
        ("1,000", "1000", 1.0),
        ("3.50", "3.5", 1.0),
        ("35", "3.5", 0.0),  # equal once the point is gone
        ("-5", "5", 0.0),
        ("5.", 5, 1.0),
        ("5 apples", "5", 0.0),
        ("", "x", 0.0),
    ],
)
async def test_by_hand(told, said, gold, score):
    assert await told(exact(), "I think first.", said, answer=gold) == score


async def test_without_gold(told):
    with pytest.raises(ScoreError, match="no gold answer"):
        await told(exact(), "x")
