"""scoring/cosine: the four corners, and what lies between."""

import pytest

from etude.core.errors import PartError, ScoreError
from etude.scoring import cosine


async def score(told, tokens, reward, **settings):
    return await told(cosine(longest=100, **settings), "x", tokens_sampled=tokens, reward=reward)


@pytest.mark.exact(178)
@pytest.mark.parametrize(
    ("tokens", "reward", "value"),
    [(0, 1.0, 1.0), (100, 1.0, 0.1), (0, 0.0, -1.0), (100, 0.0, -0.1), (500, 1.0, 0.1), (50, 1.0, 0.55)],
)
async def test_corners(told, tokens, reward, value):
    assert await score(told, tokens, reward) == pytest.approx(value)


@pytest.mark.exact(178)
async def test_monotone_in_length_with_the_sign_changed(told):
    right = [await score(told, n, 1.0) for n in range(0, 110, 5)]
    wrong = [await score(told, n, 0.5) for n in range(0, 110, 5)]
    assert right == sorted(right, reverse=True)
    assert right[0] > right[1] > right[10] > right[19] > right[20] == right[21]
    assert wrong == [-value for value in right]


async def test_settings(told):
    assert await score(told, 0, 0.5, at_least=0.5, short=2.0) == 2.0
    with pytest.raises(ScoreError, match="gave no reward"):
        await score(told, 1, None)
    with pytest.raises(PartError, match="longest is 0"):
        cosine(longest=0)
