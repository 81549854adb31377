"""DAPO's soft punishment, at its corners and halfway."""

import pytest

from etude.core.errors import PartError, ScoreError
from etude.scoring.length import length


@pytest.mark.exact(124)
@pytest.mark.parametrize(("tokens", "score"), [(0, 0), (100, 0), (101, -0.025), (120, -0.5), (140, -1), (10_000, -1)])
async def test_by_hand(told, tokens, score):
    assert await told(length(budget=100, window=40), "x", tokens_sampled=tokens) == pytest.approx(score)


@pytest.mark.parametrize(("tokens", "score"), [(100, 0), (101, -1)])
async def test_no_window_is_a_step(told, tokens, score):
    assert await told(length(budget=100), "x", tokens_sampled=tokens) == score


async def test_uncounted_tokens_are_not_free(told):
    with pytest.raises(ScoreError, match="3 turns but no sampled tokens"):
        await told(length(budget=100), "x", turns=3)


def test_negative_settings():
    with pytest.raises(PartError, match="budget -1"):
        length(budget=-1)
