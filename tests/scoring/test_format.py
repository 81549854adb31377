"""Well-formed turns, counted."""

import pytest

from etude.core.errors import ScoreError
from etude.scoring.format import format
from etude.trajectory import Message, ToolCall

READ = Message("assistant", "", (ToolCall("look", {}),))
UNREAD = '<tool_call>{"name": "look"</tool_call>'


async def test_the_share_of_turns_whose_calls_were_read(told):
    assert await told(format(), READ, UNREAD, "Done.", READ) == 0.75
    assert await told(format(marker="[CALL]"), "[CALL] look", UNREAD) == 0.5


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("<answer>4</answer>", 1.0),
        ("4", 0.0),
        ("<answer>4", 0.0),
        ("</answer>4<answer>", 0.0),
        ("<answer>3</answer><answer>4</answer>", 0.0),
    ],
)
async def test_tags(told, said, score):
    assert await told(format(tags=("answer",)), said) == score


async def test_every_tag_is_required_and_a_separate_thought_is_one(told):
    both = format(tags=("think", "answer"))
    assert await told(both, "<think>2+2</think><answer>4</answer>", "<answer>4</answer>") == 0.5
    assert await told(both, Message("assistant", "<answer>4</answer>", thought="2+2")) == 1.0


async def test_silence_has_no_form(told):
    with pytest.raises(ScoreError, match="said nothing"):
        await told(format())
