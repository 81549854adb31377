"""scoring/brevity: length against the group."""

import pytest

from etude.core.errors import ScoreError
from etude.protocols import Comparer
from etude.scoring import brevity
from etude.trajectory import Episode, Trajectory


async def score(lengths, rewards):
    episodes = [Episode(0, tokens_sampled=n, reward=r) for n, r in zip(lengths, rewards, strict=True)]
    return await brevity().compare(Trajectory("t", "task"), episodes)


@pytest.mark.exact(178)
async def test_by_hand():
    assert await score([10, 20, 30, 10, 30], [1, 1, 1, 0, 0]) == [0.5, 0.0, -0.5, 0.0, -0.5]


@pytest.mark.exact(178)
@pytest.mark.parametrize("rewards", [[1, 1, 0], [0, 0, 0]])
async def test_equal_lengths_are_nothing(rewards):
    assert await score([7, 7, 7], rewards) == [0.0, 0.0, 0.0]


@pytest.mark.exact(178)
async def test_the_unit_of_length_does_not_matter():
    lengths, rewards = [3, 8, 5, 4], [1, 0, 1, 0]
    assert await score([16 * n for n in lengths], rewards) == await score(lengths, rewards)


async def test_it_compares_and_wants_rewards():
    assert isinstance(brevity(), Comparer)
    with pytest.raises(ScoreError, match="gave no reward"):
        await score([1, 2], [1, None])
