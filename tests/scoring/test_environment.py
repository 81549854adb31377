"""The environment's reward, as it is."""

import math

import pytest

from etude.core.errors import ScoreError
from etude.scoring.environment import environment


async def test_the_reward_is_passed_on(told):
    assert await told(environment(), "done", reward=-3.5) == -3.5
    assert environment().range == (-math.inf, math.inf)


async def test_no_reward_is_an_error_and_not_zero(told):
    with pytest.raises(ScoreError, match=r"t7.*gave no reward"):
        await told(environment(), "done")


def test_the_worlds_range_can_be_declared():
    assert environment(low=0.0, high=1.0).range == (0.0, 1.0)
