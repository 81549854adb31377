"""Calls as text: what is written is read back, and what cannot be read is answered in words that help."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.rendering import Renderer
from etude.rendering.tools import parse, signature
from etude.trajectory import Message, ToolCall, Trajectory

from ..engine_fixtures import CHATML, NATIVE, make_tokenizer

RENDERERS = {"chatml": Renderer(make_tokenizer(CHATML)), "native": Renderer(make_tokenizer(NATIVE))}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(), value, max_size=3), max_leaves=6
)
names = st.from_regex(r"[a-z_][a-z0-9_.-]{0,9}", fullmatch=True)
calls = st.builds(ToolCall, names, st.dictionaries(st.text(), values, max_size=3))
words = st.text() | st.sampled_from(["</tool_call>", "<|im_end|>\n", "{}", "Sure.\n\nI will look."])
contents = st.lists(words, max_size=3).map(" ".join).map(str.strip).filter(lambda text: "<tool_call>" not in text)


def written(renderer: Renderer, message: Message) -> np.ndarray:
    """The tokens that a model would have sampled to say this."""
    trajectory = Trajectory("t", "task")
    node = trajectory.nodes[
        renderer.fill(trajectory, trajectory.add(message, trajectory.add(Message("user", "u"), None)))
    ]
    return node.ids_T[node.sampled_T]


@pytest.mark.parametrize("name", RENDERERS)
@given(content=contents, made=st.lists(calls, max_size=3))
@settings(max_examples=60, deadline=None)
def test_reading_what_was_rendered_gives_the_message_back(name, content, made):
    if name == "native" and "</tool_call>" in json.dumps([c.arguments for c in made]):
        return  # a template's own notation may leave this ambiguous
    renderer = RENDERERS[name]
    numbered = tuple(ToolCall(c.name, c.arguments, f"call_{i}") for i, c in enumerate(made, 1))
    message = Message("assistant", content, numbered)
    assert renderer.parse(written(renderer, message)) == (message, "")


def test_an_argument_may_hold_a_closing_tag():
    call = ToolCall("write", {"text": "</tool_call> <tool_call>"}, "call_1")
    renderer = RENDERERS["chatml"]
    assert renderer.parse(written(renderer, Message("assistant", "", (call,))))[0].tool_calls == (call,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<tool_call>{"name": get}</tool_call>', "tool call 1 is not valid JSON (Expecting value: line 1 column 10"),
        ('<tool_call>{"name": "get", "arguments": {"id"', "tool call 1 is not valid JSON"),
        ("<tool_call></tool_call>", "tool call 1 is not valid JSON"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "tool call 1 is not valid JSON"),
        ('<tool_call>["get"]</tool_call>', 'tool call 1 has no "name"'),
        ('<tool_call>{"arguments": {}}</tool_call>', 'tool call 1 has no "name"'),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', 'tool call 1 has no "name"'),
        (
            '<tool_call>{"name": "get", "arguments": []}</tool_call>',
            'the "arguments" of tool call 1 (get) are not an obj',
        ),
        ('<tool_call>{"name": "get", "arguments": null}</tool_call>', 'the "arguments" of tool call 1 (get)'),
    ],
)
def test_a_malformed_call_is_explained_and_its_text_kept(text, problem):
    message, found = parse("Wait. " + text)
    assert found.startswith(problem)
    assert found.endswith('write <tool_call>{"name": "...", "arguments": {...}}</tool_call>')
    assert message == Message("assistant", "Wait. " + text)


def test_a_good_call_beside_a_malformed_one_is_read():
    message, problem = parse('a <tool_call>{"name": "f"}</tool_call> b <tool_call>{</tool_call> c')
    assert message.tool_calls == (ToolCall("f", {}, "call_1"),)
    assert message.content == "a  b <tool_call>{</tool_call> c"
    assert problem.startswith("tool call 2 is not valid JSON")
    assert problem.count("tool call ") == 1


def test_a_last_call_may_lack_its_closing_tag_if_it_is_whole():
    message, problem = parse('<tool_call>{"name": "f", "arguments": {"x": 1}}')
    assert (message.tool_calls, problem) == ((ToolCall("f", {"x": 1}, "call_1"),), "")


def test_a_signature_shows_types_choices_and_descriptions():
    properties = {
        "size": {"enum": ["S", "L"]},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "at most 3"},
        "at": {"type": "object", "properties": {"x": {"type": "number"}}},
        "note": {"type": ["string", "null"]},
    }
    tool = {"name": "add", "description": "Add one.", "parameters": {"properties": properties, "required": ["size"]}}
    assert signature(tool) == (
        'add(size: "S" | "L", tags: list[str] = ..., at: {x: float} = ..., note: str | null = ...): Add one.\n'
        "  tags: at most 3"
    )
    assert signature({"name": "now"}) == "now()"
