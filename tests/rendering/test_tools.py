"""Tools and calls as text for templates without tools."""

from etude.rendering import Renderer
from etude.rendering.tools import call_text, signature
from etude.trajectory import Message, ToolCall

from ..engine_fixtures import CHATML, make_tokenizer


def test_an_argument_may_hold_a_closing_tag():
    call = ToolCall("write", {"text": "</tool_call> <tool_call>"}, "call_1")
    renderer = Renderer(make_tokenizer(CHATML))
    assert renderer.parse(renderer.encode(call_text(call)))[0] == Message("assistant", "", (call,))


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
