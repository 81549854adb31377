"""What the scorers share: which words are the agent's, which the answer, and what no score may be."""

import math
from dataclasses import dataclass

import pytest

from etude.core.errors import ScoreError
from etude.scoring.base import accepted_answers, checked, final_answer, steps, turns, words
from etude.scoring.environment import environment
from etude.trajectory import Boundary, Episode, Failure, Message, ToolCall, Trajectory


def episode_of(*messages, answer=None, **episode):
    """One episode whose assistant messages were sampled."""
    trajectory = Trajectory("t7", "task", meta={} if answer is None else {"answer": answer})
    leaf = None
    for message in messages or (Message("user", "?"),):
        leaf = trajectory.add(message, leaf, version=0 if message.role == "assistant" else None)
    trajectory.episodes.append(Episode(leaf, **episode))
    return trajectory, trajectory.episodes[0]


@dataclass
class constant:
    value: float
    range = (-1.0, 2.0)

    async def __call__(self, trajectory, episode):
        return self.value


@pytest.mark.parametrize("value", [-1.0, 0.0, 2.0])
async def test_a_score_in_range_passes(value):
    assert await checked(constant(value), *episode_of()) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.001, -1.5])
async def test_nan_infinity_and_out_of_range_are_refused_with_value_range_and_place(value):
    with pytest.raises(ScoreError) as refused:
        await checked(constant(value), *episode_of())
    for part in ("t7", "node 0", "constant", str(value), "[-1.0, 2.0]"):
        assert part in str(refused.value)


async def test_an_unbounded_range_still_means_finite():
    with pytest.raises(ScoreError, match="gave inf"):
        await checked(environment(), *episode_of(reward=math.inf))


async def test_a_failed_episode_is_not_scored():
    failed = Failure(Boundary.TOOL, "disk full")
    with pytest.raises(ScoreError, match=r"failed \(tool: disk full\); leave it unscored"):
        await checked(constant(0.0), *episode_of(failure=failed))


def test_the_agents_turns_are_those_it_sampled():
    trajectory = Trajectory("t", "task")
    example = trajectory.add(Message("assistant", "an example in the prompt"), None)
    asked = trajectory.add(Message("user", "?"), example)
    said = trajectory.add(Message("assistant", "mine"), asked, version=0)
    trajectory.add(Message("assistant", "another branch"), asked, version=0)
    assert [m.content for m in turns(trajectory, Episode(said))] == ["mine"]
    for node in trajectory.nodes:
        node.version = None  # a log: nothing was sampled here
    assert [m.content for m in turns(trajectory, Episode(said))] == ["an example in the prompt", "mine"]


def test_turns_before_history_was_rewritten_are_turns():
    trajectory = Trajectory("t", "task")
    asked = trajectory.add(Message("user", "?"), None)
    first = trajectory.add(Message("assistant", "look", thought="hm"), asked, version=0)
    copy = trajectory.reuse(trajectory.nodes[first].message, asked)  # the template leaves out old thoughts
    result = trajectory.add(Message("tool", "seen"), copy)
    last = trajectory.add(Message("assistant", "done"), result, version=0)
    episode = Episode(last, rewritten=[first])
    assert [m.content for m in turns(trajectory, episode)] == ["look", "done"]
    assert steps(trajectory, episode) == [(first, [Message("tool", "seen")]), (last, [])]


def test_the_final_answer_is_the_last_message_or_the_argument_of_answer():
    said = Message("assistant", " Paris. \n")
    call = Message("assistant", "I know.", (ToolCall("answer", {"text": "Paris"}),))
    assert final_answer(*episode_of(Message("user", "?"), Message("assistant", "Rome"), said)) == "Paris."
    assert final_answer(*episode_of(Message("user", "?"), call, Message("tool", "ok"))) == "Paris"
    assert final_answer(*episode_of(Message("user", "?"))) == ""


def test_gold_is_one_or_several_and_its_absence_is_an_error():
    assert accepted_answers(episode_of(answer="a")[0]) == ["a"]
    assert accepted_answers(episode_of(answer=["a", "b"])[0]) == ["a", "b"]
    for nothing in (None, []):
        with pytest.raises(ScoreError, match=r"t7 \(task task\) has no gold answer"):
            accepted_answers(episode_of(answer=nothing)[0])


def test_normalisation():
    assert words("The  Answer: an APPLE, a day!") == ["answer", "apple", "day"]
    assert words("theatre and ante") == ["theatre", "and", "ante"]  # articles are whole words only
