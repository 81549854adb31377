"""What the scorers share: which words are the agent's, and which the answer."""

import pytest

from etude.core.errors import ScoreError
from etude.scoring.base import accepted_answers, final_answer, steps, turns, words
from etude.trajectory import Episode, Message, ToolCall, Trajectory


def episode_of(*messages, answer=None, **episode):
    """One episode whose assistant messages were sampled."""
    trajectory = Trajectory("t7", "task", meta={} if answer is None else {"answer": answer})
    leaf = None
    for message in messages or (Message("user", "?"),):
        leaf = trajectory.add(message, leaf, version=0 if message.role == "assistant" else None)
    trajectory.episodes.append(Episode(leaf, **episode))
    return trajectory, trajectory.episodes[0]


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
