"""scoring/rounds: LIMI's three metrics."""

import itertools

import pytest

from etude.core.errors import PartError
from etude.scoring.rounds import rounds
from etude.trajectory import Episode, Message, ToolCall, Trajectory


async def metrics(*said, most: int = 3):
    trajectory = Trajectory("t", "t", meta={"answer": "blue"})
    leaf = trajectory.add(Message("user", "?"), None)
    for message in said:
        message = Message("assistant", message) if isinstance(message, str) else message
        leaf = trajectory.add(message, leaf, version=0)
    episode = Episode(leaf)
    sr = await rounds(most)(trajectory, episode)
    return episode.scores["ftfc"], sr, episode.scores["rc"]


@pytest.mark.exact(77)
@pytest.mark.parametrize("said", list(itertools.product(["Answer: blue", "Answer: red"], repeat=4)))
async def test_right_at_once_is_right_at_all_and_only_spared_rounds_count(said):
    ftfc, sr, rc = await metrics(*said)
    assert ftfc <= sr
    assert (rc == 0) == ("Answer: blue" not in said[:2])  # nothing was solved before the last round
    assert sr == float("Answer: blue" in said[:3])


async def test_by_hand():
    call = Message("assistant", "Answer: blue", (ToolCall("search", {}),))
    assert await metrics(call, "Answer: red", "It is so. Answer: Blue.") == (0.0, 1.0, 1.0)  # a call is no round
    assert await metrics("blue") == (1.0, 1.0, 2.0)
    assert await metrics() == (0.0, 0.0, 0.0)
    with pytest.raises(PartError, match="most=0"):
        rounds(0)
