"""One-episode trajectories to score."""

import pytest

from etude.trajectory import Episode, Message, Trajectory


@pytest.fixture
def told():
    """Score what the agent said: messages, or plain texts; more settings go to the episode."""

    async def score(scorer, *said, answer=None, **episode):
        trajectory = Trajectory("t7", "task", meta={} if answer is None else {"answer": answer})
        leaf = trajectory.add(Message("user", "?"), None)
        for message in said:
            message = Message("assistant", message) if isinstance(message, str) else message
            leaf = trajectory.add(message, leaf, version=0)
        return await scorer(trajectory, Episode(leaf, **episode))

    return score
