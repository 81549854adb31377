"""Groups of episodes to weigh."""

import numpy as np
import pytest

from etude.trajectory import Episode, Message, ToolCall, Trajectory


@pytest.fixture
def played():
    """A trajectory with one episode per row of turns; a turn is the name of the tool it calls, or its node's fields."""

    def make(scores, turns=None):
        trajectory = Trajectory("t", "task")
        root = trajectory.add(Message("user", "?"), None)
        for score, row in zip(scores, turns or [["look"]] * len(scores), strict=True):
            leaf = root
            for turn in row:
                fields = {} if isinstance(turn, str) else turn
                call = (ToolCall(turn, {}),) if isinstance(turn, str) else ()
                ids = {"ids_T": np.arange(3, dtype=np.int32), "sampled_T": np.array([False, True, True])}
                leaf = trajectory.add(Message("assistant", "", call), leaf, version=0, **ids, **fields)
            trajectory.episodes.append(Episode(leaf, score=None if np.isnan(score) else float(score)))
        return trajectory

    return make


@pytest.fixture
def weights_of():
    """The weight of each turn of each episode, NaN where it has none."""

    def read(trajectory):
        def of(n):
            weight_T = trajectory.nodes[n].weight_T
            return np.nan if weight_T is None else float(weight_T[-1])

        paths = [trajectory.path(episode.leaf) for episode in trajectory.episodes]
        return [[of(n) for n in path if trajectory.nodes[n].sampled] for path in paths]

    return read
