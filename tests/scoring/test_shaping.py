"""scoring/shaping: differences of potentials, which leave the best policy the best."""

import numpy as np
import pytest

from etude.core.errors import ScoreError
from etude.credit import turns
from etude.scoring.shaping import shaping
from etude.trajectory import Episode, Message

from .test_scoring import episode_of


def stepped(*potentials):
    trajectory, episode = episode_of(Message("user", "?"), *(Message("assistant", "x") for _ in potentials))
    for node, potential in zip(trajectory.nodes[1:], potentials, strict=True):
        node.scores["near"] = potential
    return trajectory, episode


async def test_by_hand():
    trajectory, episode = stepped(0.5, 0.25, 1.0)
    score = await shaping("near", gamma=0.5, start=0.1, scale=2.0)(trajectory, episode)
    # 2 (.5 * .5 - .1), 2 (.5 * .25 - .5), 2 (.5 * 0 - .25): the last state has potential 0
    rewards = [node.scores["shaping"] for node in trajectory.nodes[1:]]
    assert rewards == pytest.approx([0.3, -0.75, -0.5])
    assert score == pytest.approx(-0.95)


@pytest.mark.parametrize("potentials", [(0.5,), (0.0, 1.0), (0.3, 0.9, 0.1)])
async def test_without_discount_every_episode_gets_the_same(potentials):
    assert await shaping("near", start=0.25)(*stepped(*potentials)) == pytest.approx(-0.25)


async def test_turn_credit_reads_it():
    trajectory, _ = episode_of(Message("user", "?"))
    for near in (0.8, 0.2):
        leaf = 0
        for potential in (near, 0.0):
            leaf = trajectory.add(Message("assistant", "x"), leaf, version=0, scores={"near": potential})
            trajectory.nodes[leaf].ids_T, trajectory.nodes[leaf].sampled_T = np.zeros(1, np.int32), np.ones(1, bool)
        trajectory.episodes.append(Episode(leaf))
    trajectory.episodes = trajectory.episodes[1:]
    for episode in trajectory.episodes:
        episode.score = await shaping("near")(trajectory, episode)
    turns(trajectory, scores=["shaping"], std=False)
    weights = [float(node.weight_T[0]) for node in trajectory.nodes[1:]]
    # returns of the first turns are equal (telescoping); of the second ones -.8 and -.2
    assert weights == pytest.approx([0, -0.3, 0, 0.3])


async def test_a_turn_without_potential():
    trajectory, episode = stepped(1.0, 1.0)
    del trajectory.nodes[2].scores["near"]
    with pytest.raises(ScoreError, match="turn 2 has no score 'near'"):
        await shaping("near")(trajectory, episode)
