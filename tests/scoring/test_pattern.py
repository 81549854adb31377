"""scoring/pattern: a regular expression on the last message."""

import pytest

from etude.core.errors import PartError
from etude.scoring import pattern


@pytest.mark.exact(178)
@pytest.mark.parametrize(("text", "value"), [("so \\boxed{7}.", 1.0), ("so 7.", 0.0), ("\\boxed{7", 0.0), ("", 0.0)])
async def test_a_box(told, text, value):
    assert await told(pattern(regex=r"\\boxed\{.*\}"), text) == value


async def test_only_the_last_message_counts(told):
    assert await told(pattern(regex="Answer:"), "Answer: 3", "I take it back") == 0.0
    assert await told(pattern(regex="^A.*B$"), "A\nB") == 1.0
    assert await told(pattern(regex="x")) == 0.0


def test_no_regular_expression():
    with pytest.raises(PartError, match=r"'\(' is no regular expression"):
        pattern(regex="(")
