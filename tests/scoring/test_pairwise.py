"""scoring/pairwise: win shares over both orders of every pair."""

import re

import pytest

from etude.core.errors import ScoreError
from etude.policies import scripted
from etude.scoring.pairwise import pairwise
from etude.trajectory import Episode, Message, Trajectory


def group(*said):
    trajectory = Trajectory("t7", "task")
    asked = trajectory.add(Message("user", "?"), None)
    for text in said:
        trajectory.episodes.append(Episode(trajectory.add(Message("assistant", text), asked, version=0)))
    return trajectory


def by(verdict):
    """A judge that knows the two words that the agents said, the first one shown first."""

    def judge(dialogue):
        first, second = re.findall(r'"assistant", "content": "(\w+)"', dialogue[-1].content)
        return Message("assistant", f"Because.\nWinner: {verdict(first, second)}")

    return pairwise(scripted(judge), rubric="The earlier word is better.")


async def compared(scorer, *said):
    trajectory = group(*said)
    scores = await scorer.compare(trajectory, trajectory.episodes)
    return scores, [e.scores["pairwise_inconsistent"] for e in trajectory.episodes]


async def test_a_fair_judge_ranks_by_wins():
    fair = by(lambda first, second: "A" if first < second else "B" if second < first else "tie")
    assert await compared(fair, "c", "a", "b", "b") == ([0, 1, 0.5, 0.5], [0, 0, 0, 0])


async def test_a_judge_that_likes_the_first_place_gives_half_to_all():
    assert await compared(by(lambda first, second: "a"), "x", "y", "z") == ([0.5] * 3, [1.0] * 3)


async def test_a_tie_in_one_order_alone_is_three_quarters():
    # x wins when it is first and ties when it is second
    assert await compared(by(lambda f, s: "A" if f == "x" else "**tie**"), "x", "y") == ([0.75, 0.25], [1, 1])


async def test_an_unreadable_pair_is_left_out():
    # x against z cannot be read in one of its orders; a wins over all else
    def verdict(first, second):
        return "?" if (first, second) == ("z", "x") else ("A" if first < second else "B")

    assert await compared(by(verdict), "x", "y", "z") == ([1.0, 0.5, 0.0], [0, 0, 0])
    with pytest.raises(ScoreError, match=r"t7.*none of its 1 comparisons could be read"):
        await compared(by(lambda first, second: "nobody"), "x", "y")
    with pytest.raises(ScoreError, match="none of its 0 comparisons"):
        await compared(by(verdict), "x")


async def test_the_record_and_the_rubric_are_shown():
    asked = []

    def judge(dialogue):
        asked.append(dialogue[-1].content)
        return Message("assistant", "Winner: tie")

    trajectory = group("one", "two")
    await pairwise(scripted(judge), rubric="Be kind.").compare(trajectory, trajectory.episodes)
    assert len(asked) == 2
    for question in asked:
        assert "Be kind." in question
        assert question.count('{"role": "user", "content": "?"}') == 2
    assert asked[0].index('"one"') < asked[0].index('"two"')
    assert asked[1].index('"two"') < asked[1].index('"one"')
