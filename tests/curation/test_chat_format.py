"""curation/chat_format: calls as dialogue, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude import curation
from etude.curation.chat_format import as_chat, steps_of
from etude.trajectory import Message, ToolCall

word = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)
call = st.builds(ToolCall, word, st.dictionaries(word, st.integers() | word | st.none() | st.lists(word), max_size=3))
turn = st.tuples(word | st.just(""), st.lists(call, min_size=1, max_size=3))


@pytest.mark.exact(66)
@given(st.lists(turn, max_size=4))
def test_a_chat_converts_back_to_the_same_steps(turns):
    dialogue, expected = [Message("system", "s"), Message("user", "q")], []
    for thought, calls in turns:
        dialogue.append(Message("assistant", thought, tuple(calls)))
        dialogue += [Message("tool", f"result {n}\nof two lines") for n in range(len(calls))]
        expected += [(thought if n == 0 else "", c.name, c.arguments) for n, c in enumerate(calls)]
    dialogue.append(Message("assistant", "done"))
    chat = as_chat(dialogue)
    assert steps_of(chat) == expected
    assert not any(m.tool_calls or m.role == "tool" for m in chat)
    roles = [m.role for m in chat[1:]]
    assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_by_hand(dialogue):
    (t,) = curation.chat_format([dialogue("a")], share=1.0)
    assert [m.content for m in t.dialogue(t.episodes[0].leaf)] == [
        "Be brief.",
        "What is the weather in Oslo?\nWhat do you think?",
        "Let me look.",
        "Which tool?",
        "weather",
        "With which arguments?",
        '{"city": "Oslo"}',
        "Result: sunny",
        "Fine.",
    ]
    assert all(n.ids_T is None for n in t.nodes)


def test_the_share_is_drawn(dialogue):
    data = [dialogue(str(n)) for n in range(10)]
    found = curation.chat_format(data, share=0.3)
    assert [t.id for t in found] == [t.id for t in data]
    assert sum("chat_format" in t.meta for t in found) == 3
    assert sum(t is before for t, before in zip(found, data, strict=True)) == 7
