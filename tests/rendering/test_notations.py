"""Calls in each notation: what a template writes is read back; what cannot be read is answered in words that help."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.core.errors import RenderingError
from etude.rendering import Renderer
from etude.rendering.notations import NOTATIONS, parse
from etude.trajectory import Message, ToolCall, Trajectory

from ..engine_fixtures import CHATML, GET, NATIVE, make_tokenizer


def template(calls: str) -> str:
    """ChatML with these calls behind an assistant's content."""
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if tools and loop.first %}{{ tools | tojson }}"
        "{% endif %}{{ m.content }}{% if m.tool_calls %}" + calls + "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


# in the words of the models' own templates: Qwen3-Coder's, Llama 3.1's (which knows one call), Mistral 7B v0.3's,
# Ministral 3's, LFM2's documentation
XML = """{%- for call in m.tool_calls %}{{ '\n<tool_call>\n<function=' + call.function.name + '>\n' }}
{%- for key, value in call.function.arguments | items %}{{ '<parameter=' + key + '>\n' }}
{{- value | tojson if value is mapping or (value is sequence and value is not string) else value | string }}
{{- '\n</parameter>\n' }}{% endfor %}{{ '</function>\n</tool_call>' }}{% endfor %}"""
LLAMA = """{{ '<|python_tag|>' if m.content }}{% for call in m.tool_calls %}
{{- '{"name": "' + call.function.name + '", "parameters": ' + call.function.arguments | tojson + '}' }}
{{- '; ' if not loop.last }}{% endfor %}"""
MISTRAL = """{{ '[TOOL_CALLS] [' }}{% for call in m.tool_calls %}{% set out = call.function | tojson %}{{ out[:-1] }}
{%- if call.id | length != 9 %}{{ raise_exception('Tool call IDs should be of length 9!') }}{% endif %}
{{- ', "id": "' + call.id + '"}' + (']' if loop.last else ', ') }}{% endfor %}"""
MISTRAL_NEW = """{%- for call in m.tool_calls %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + call.function.arguments | tojson }}{% endfor %}"""
PYTHONIC = """{{ '<|tool_call_start|>[' }}{% for call in m.tool_calls %}{{ call.function.name + '(' }}
{%- for key, value in call.function.arguments | items %}{{ key + '=' + value | tojson }}{{ ', ' if not loop.last }}
{%- endfor %}{{ ')' + (', ' if not loop.last else '') }}{% endfor %}{{ ']<|tool_call_end|>' }}"""
CASES = {
    "plain": ("hermes", CHATML),
    "native": ("hermes", NATIVE),
    "xml": ("xml", template(XML)),
    "llama": ("llama", template(LLAMA)),
    "mistral": ("mistral", template(MISTRAL)),
    "mistral, new": ("mistral", template(MISTRAL_NEW)),
    "pythonic": ("pythonic", template(PYTHONIC)),
}
RENDERERS = {case: Renderer(make_tokenizer(text)) for case, (_, text) in CASES.items()}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars | st.sampled_from(["</tool_call> <tool_call>", "5", "true", '", "a": )', "<|im_end|>", "[x(", "a\nb"]),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(), value, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[a-z_][a-z0-9_.-]{0,9}", fullmatch=True)
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True) | st.sampled_from(["from", "class", "Größe"])
calls = st.tuples(names, st.dictionaries(keys, values, max_size=3))
words = st.text() | st.sampled_from(["</tool_call>", "<|im_end|>\n", "{}", "[1]", "Sure.\n\nI will look."])
marks = re.compile(r"(?s)<tool_call>|<function=|<\|python_tag\|>|\[TOOL_CALLS\]|<\|tool_call_start\|>|^[\[{].*[(:]")
contents = st.lists(words, max_size=3).map(" ".join).map(str.strip).filter(lambda text: not marks.search(text))
KINDS = {int: "integer", float: "number", bool: "boolean", list: "array", dict: "object", str: "string"}


def written(renderer: Renderer, message: Message) -> np.ndarray:
    """The tokens that a model would have sampled to say this."""
    trajectory = Trajectory("t", "task")
    node = trajectory.nodes[
        renderer.fill(trajectory, trajectory.add(message, trajectory.add(Message("user", "u"), None)))
    ]
    return node.ids_T[node.sampled_T]


def tools_for(made: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Tools whose schemas have exactly the types of these arguments."""
    return [
        {
            "name": c.name,
            "parameters": {"properties": {k: {"type": KINDS.get(type(v), "null")} for k, v in c.arguments.items()}},
        }
        for c in made
    ]


@pytest.mark.parametrize("case", CASES)
def test_the_notation_is_known_by_the_template(case):
    assert RENDERERS[case].notation == CASES[case][0]
    assert {notation for notation, _ in CASES.values()} == set(NOTATIONS), "every notation has a case"


@pytest.mark.parametrize("case", CASES)
@given(content=contents, made=st.lists(calls, max_size=3))
@settings(max_examples=40, deadline=None)
def test_reading_what_was_rendered_gives_the_message_back(case, content, made):
    id = "call{:05}" if case.startswith("mistral") else "call_{}"
    numbered = tuple(ToolCall(f"{name}{i}", arguments, id.format(i)) for i, (name, arguments) in enumerate(made, 1))
    message = Message("assistant", content, numbered)
    renderer = RENDERERS[case]
    assert renderer.parse(written(renderer, message), tools_for(numbered)) == (message, "")


def test_a_value_in_a_list_of_calls_may_be_python_or_json():
    text = """[a.b(x='it\\'s [1, 2)', y={'k': (1, None)}), c(z={"k": [true, null]}, from=-1.5,)]"""
    message, problem = parse(text, "pythonic")
    assert problem == ""
    assert message.tool_calls == (
        ToolCall("a.b", {"x": "it's [1, 2)", "y": {"k": [1, None]}}, "call_1"),
        ToolCall("c", {"z": {"k": [True, None]}, "from": -1.5}, "call_2"),
    )
    assert parse("[a(x=__import__('os').getcwd())]", "pythonic")[0].tool_calls == (), "nothing is run"


SCHEMA = {
    "n": {"type": "integer"},
    "x": {"type": "number"},
    "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "both": {"type": ["boolean", "string"]},
    "any": {"description": "no type"},
}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("n", "3", 3),
        ("n", "3.0", 3),
        ("n", "three", "three"),
        ("n", "3.5", "3.5"),
        ("x", "3", 3),
        ("x", "1e3", 1000.0),
        ("maybe", "null", None),
        ("maybe", "None", None),
        ("maybe", "5", "5"),
        ("both", "true", True),
        ("both", "False", False),
        ("both", "yes", "yes"),
        ("any", "5", "5"),
        ("unknown", "[1]", "[1]"),
    ],
)
def test_what_is_written_as_text_gets_the_type_of_its_schema(key, text, value):
    tools = [{"name": "f", "parameters": {"properties": SCHEMA}}]
    written = f"<tool_call><function=f><parameter={key}>{text}</parameter></function></tool_call>"
    arguments = parse(written, "xml", tools)[0].tool_calls[0].arguments
    assert arguments == {key: value}
    assert type(arguments[key]) is type(value)


@pytest.mark.parametrize(
    ("notation", "text", "content", "found"),
    [
        ("hermes", 'a <tool_call>{"name": "f", "arguments": {"x": 1}}', "a", [("f", {"x": 1})]),  # no closing tag
        ("hermes", '<tool_call>{"name": "f"}</tool_call> b', "b", [("f", {})]),
        ("xml", "a\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>", "a", [("f", {"x": "1"})]),
        ("xml", "<tool_call><function=f></function></tool_call> b", "b", [("f", {})]),
        ("llama", '<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "arguments": {"x": 1}}', "",
         [("f", {}), ("g", {"x": 1})]),
        ("llama", 'a <|python_tag|>{"name": "f", "parameters": {}}', "a", [("f", {})]),
        ("llama", '{"type": "function", "name": "f", "parameters": {}}', "", [("f", {})]),
        ("llama", '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),  # an answer in JSON is no call
        ("llama", 'Like {"name": "f", "parameters": {}}?', 'Like {"name": "f", "parameters": {}}?', []),
        ("mistral", 'a[TOOL_CALLS]f{"x": 1}[TOOL_CALLS]g[CALL_ID]abc123[ARGS]{}', "a", [("f", {"x": 1}), ("g", {})]),
        ("mistral", "[TOOL_CALLS] []", "[TOOL_CALLS] []", []),
        ("pythonic", "[f(x=1), g()]", "", [("f", {"x": 1}), ("g", {})]),
        ("pythonic", "a <|tool_call_start|>[f()]<|tool_call_end|> b", "a  b", [("f", {})]),
        ("pythonic", "[1, 2] and [f](g)", "[1, 2] and [f](g)", []),
    ],
)  # fmt: skip
def test_forms_that_models_use(notation, text, content, found):
    message, problem = parse(text, notation)
    assert (message.content, problem) == (content, "")
    assert [(call.name, call.arguments) for call in message.tool_calls] == found


@pytest.mark.parametrize(
    ("notation", "text", "problem"),
    [
        ("hermes", '<tool_call>{"name": get}</tool_call>', "tool call 1 is not valid JSON (Expecting value: line 1"),
        ("hermes", '<tool_call>{"name": "get", "arguments": {"id"', "tool call 1 is not valid JSON"),
        ("hermes", "<tool_call></tool_call>", "tool call 1 is not valid JSON"),
        ("hermes", "<tool_call>" + "[" * 100_000 + "</tool_call>", "tool call 1 is not valid JSON"),
        ("hermes", '<tool_call>{"name": "f"}}</tool_call>', "tool call 1 is not valid JSON (Extra data: '}</tool_ca"),
        ("hermes", '<tool_call>["get"]</tool_call>', 'tool call 1 has no "name"'),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', 'tool call 1 has no "name"'),
        ("hermes", '<tool_call>{"name": 3, "arguments": {}}</tool_call>', 'tool call 1 has no "name"'),
        ("hermes", '<tool_call>{"name": "get", "arguments": []}</tool_call>',
         'the "arguments" of tool call 1 (get) are not an obj'),
        ("hermes", '<tool_call>{"name": "get", "arguments": null}</tool_call>', 'the "arguments" of tool call 1 (get)'),
        ("xml", "<tool_call>get</tool_call>", "tool call 1 has no <function=...>"),
        ("xml", '<tool_call>{"name": "get"}</tool_call>', "tool call 1 has no <function=...>"),
        ("xml", "<tool_call><function=get><parameter=id>x</function></tool_call>",
         "tool call 1 (get) breaks off at '<parameter=id>x</fun'"),
        ("xml", "<tool_call><function=get>\n<parameter=id>\nx", "tool call 1 (get) breaks off at '<parameter=id>\\nx'"),
        ("llama", "<|python_tag|>get(id=1)", "tool call 1 is not valid JSON"),
        ("llama", '<|python_tag|>{"name": "f", "parameters": {}}; {"name"', "tool call 2 is not valid JSON"),
        ("llama", '<|python_tag|>{"name": "get", "parameters": "x"}', 'the "parameters" of tool call 1 (get) are not'),
        ("mistral", "[TOOL_CALLS][{]", "tool call 1 is not valid JSON"),
        ("mistral", '[TOOL_CALLS][{"name": "f"}, {}]', 'tool call 2 has no "name"'),
        ("mistral", '[TOOL_CALLS]{"x": 1}', "tool call 1 has no name"),
        ("mistral", "[TOOL_CALLS]get[ARGS]id", "tool call 1 is not valid JSON"),
        ("pythonic", "<|tool_call_start|>get(id=1)<|tool_call_end|>", "tool call 1 is not in a list: 'get(id=1)"),
        ("pythonic", '<|tool_call_start|>[get("x")]<|tool_call_end|>', "tool call 1 (get) has no name=value at '\"x\""),
        ("pythonic", "<|tool_call_start|>[f(), get(id=x)]", "tool call 2 (get): id is not a Python or JSON value: 'x'"),
        ("pythonic", "<|tool_call_start|>[get(id={1})]", "tool call 1 (get): id is not a Python or JSON value: '{1}'"),
        ("pythonic", '<|tool_call_start|>[get(id="x', "tool call 1 (get): id is not a Python or JSON value: '\"x'"),
        ("pythonic", "<|tool_call_start|>[get(id=1]", "tool call 1 (get) has no name=value at ']'"),
        ("pythonic", f"<|tool_call_start|>[get(id={'[' * 100_000})]", "tool call 1 (get): id is not a Python"),
        ("pythonic", "<|tool_call_start|>[f(), 3]<|tool_call_end|>", "tool call 2 is not a call: '3]"),
    ],
)  # fmt: skip
def test_a_malformed_call_is_explained_and_its_text_kept(notation, text, problem):
    message, found = parse("Wait. " + text, notation)
    assert found.startswith(problem)
    assert found.endswith(f"; write {NOTATIONS[notation].form}")
    assert message == Message("assistant", "Wait. " + text)


@pytest.mark.parametrize(
    ("notation", "good", "bad"),
    [
        ("hermes", '<tool_call>{"name": "f"}</tool_call>', "<tool_call>{</tool_call>"),
        ("xml", "<tool_call><function=f></function></tool_call>", "<tool_call>{</tool_call>"),
        ("mistral", '[TOOL_CALLS][{"name": "f"}]', "[TOOL_CALLS]{"),
        ("pythonic", "<|tool_call_start|>[f()]<|tool_call_end|>", "<|tool_call_start|>{<|tool_call_end|>"),
    ],
)
def test_a_good_call_beside_a_malformed_one_is_read(notation, good, bad):
    for text, content, number in [(f"a {good} b {bad}", f"a  b {bad}", 2), (f"a {bad}{good} b", f"a {bad} b", 1)]:
        message, problem = parse(text, notation)
        assert [call.name for call in message.tool_calls] == ["f"]
        assert message.content == content
        assert problem.startswith(f"tool call {number} ")
        assert problem.count("tool call ") == 1


def test_a_notation_can_be_given():
    renderer = Renderer(make_tokenizer(NATIVE), "pythonic")
    assert renderer.parse(renderer.encode("[f(x=1)]"))[0].tool_calls == (ToolCall("f", {"x": 1}, "call_1"),)
    same, other = Renderer(make_tokenizer(NATIVE), "hermes").fingerprint, renderer.fingerprint
    assert RENDERERS["native"].fingerprint == same != other
    with pytest.raises(RenderingError, match=r"no notation 'pythnic'; did you mean 'pythonic'\? There are: auto, herm"):
        Renderer(make_tokenizer(NATIVE), "pythnic")
    with pytest.raises(RenderingError, match="no notation 'response_template'"):  # the tokenizer's to bring
        Renderer(make_tokenizer(NATIVE), "response_template")


# -- what a tokenizer itself says about its answers ----------------------------------------------------------------

RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<call (?P<name>\w+)>",
            "close": "</call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<(?P<key>\w+)>(?P<value>.*?)</\w+>"},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"content": "text"},
    },
}


def test_a_tokenizer_s_own_response_template_comes_first():
    tool = {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}
    tokenizer = make_tokenizer(NATIVE + "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}")
    tokenizer.response_template = RESPONSE
    renderer = Renderer(tokenizer)
    text = "hm</think>Look.<call f><n>1</n></call><call get><id>2</id></call>"
    message, problem = renderer.parse(renderer.encode(text + "<|im_end|>"), [tool, GET])
    assert problem == ""
    two = (ToolCall("f", {"n": 1}, "call_1"), ToolCall("get", {"id": "2"}, "call_2"))
    assert message == Message("assistant", "Look.", two, thought="hm")
    assert Renderer(tokenizer, "hermes").parse(renderer.encode(text))[0].content == text
    tokenizer.chat_template = CHATML  # without tools in the template, calls are written and read as everywhere
    assert Renderer(tokenizer).notation == "hermes"


def test_an_answer_that_the_response_template_cannot_read_is_explained():
    tokenizer = make_tokenizer(NATIVE)
    tokenizer.response_template = json.loads(json.dumps(RESPONSE).replace('"xml-inline"', '"json"'))
    del tokenizer.response_template["fields"]["tool_calls"]["content_args"]
    renderer = Renderer(tokenizer)
    message, problem = renderer.parse(renderer.encode("Wait. <call f>{</call>"))
    assert problem.startswith("not an answer in the model's own notation (json")
    assert message == Message("assistant", "Wait. <call f>{</call>")
