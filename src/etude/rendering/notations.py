"""Calls in what a model wrote, in the notation of its family.

The notation is known by what its chat templates contain, or given by name:

    hermes    <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>    Hermes, Qwen 2.5 and 3, SmolLM 3
    xml       <tool_call><function=f><parameter=x>1</parameter></function></tool_call>    Qwen3-Coder, Qwen 3.5
    llama     {"name": "f", "parameters": {"x": 1}}; {...}    Llama 3.1 to 3.3, with or without <|python_tag|>
    mistral   [TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}]    and the newer [TOOL_CALLS]f[ARGS]{"x": 1}
    pythonic  [f(x=1), g(y="a")]    Llama 4; LFM2 puts <|tool_call_start|> and <|tool_call_end|> around it

A template with tools in none of these is read as hermes.
"""

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import RenderingError
from etude.trajectory import Message, ToolCall

Tools = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Notation:
    """How one family of models writes calls."""

    template: str
    """Regular expression: what only its chat templates contain."""
    start: re.Pattern[str]
    """Where calls begin."""
    close: re.Pattern[str]
    """Where calls that cannot be read end, if not at the end of the text."""
    read: Callable[[str, int, int, Tools], tuple[list[ToolCall], int]]
    """(text, place, number of the first call, tools) -> calls from that place on, and their end.

    Raises ValueError with what is wrong."""
    form: str
    """What to write."""


def detect(template: str) -> str:
    """The name of the notation in which a chat template writes calls."""
    return next((name for name, notation in NOTATIONS.items() if re.search(notation.template, template)), "hermes")


def parse(text: str, notation: str = "hermes", tools: Tools = ()) -> tuple[Message, str]:
    """Read an assistant's text: the message, and what is wrong with its calls in words that say how to mend them.

    Content around the calls is kept, and so is the text of calls that cannot be read. A last call may lack its closing
    tag if it is whole. Of calls in one list, all are read or none. `tools` (see Trajectory.tools) give the types of
    arguments in a notation that has only text.

    >>> parse('Sure. <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')[0].tool_calls[0].arguments
    {'x': 1}
    >>> parse('<tool_call>{"name": f}</tool_call>')[1][:38]
    'tool call 1 is not valid JSON (Expecti'
    """
    way = NOTATIONS[notation]
    calls: list[ToolCall] = []
    problems: list[str] = []
    content, at = "", 0
    while match := way.start.search(text, at):
        content += text[at : match.start()]
        try:
            found, at = way.read(text, match.end(), len(calls) + len(problems) + 1, tools)
        except ValueError as error:
            problems.append(f"{error}; write {way.form}")
            close = way.close.search(text, match.end())
            found, at = [], close.end() if close else len(text)
        calls += found
        content += "" if found else text[match.start() : at]
    return Message("assistant", (content + text[at:]).strip(), tuple(calls)), "; ".join(problems)


def calls_grammar(tools: Tools, notation: str = "hermes") -> str:
    """A Lark grammar (as llguidance reads it) of all text whose calls are well-formed calls of these tools.

    Raises RenderingError for a notation other than hermes.
    """
    if notation != "hermes":
        raise RenderingError(f"no grammar for calls in notation {notation!r}; only 'hermes' has one yet")
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["name"]},
                "arguments": {"type": "object", "additionalProperties": False, **(tool.get("parameters") or {})},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    space = r"[ \n]{1,8}"  # without end, a weak model never writes on
    schema = {"anyOf": calls, "x-guidance": {"whitespace_pattern": space}}
    return f"""start: (opened call)* TEXT
opened[lazy]: /(?s:.*)<tool_call>/
TEXT: /(?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/
call: SPACE? %json {json.dumps(schema)} SPACE? "</tool_call>"
SPACE: /{space}/
"""


def as_call(value: Any, number: int, id: str = "call_{}") -> ToolCall:
    """The call that a JSON value describes; raises ValueError if it describes none."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError(f'tool call {number} has no "name"')
    key = "parameters" if "parameters" in value and "arguments" not in value else "arguments"
    arguments = value.get(key, {})
    if not isinstance(arguments, dict):
        raise ValueError(f'the "{key}" of tool call {number} ({value["name"]}) are not an object')
    return ToolCall(value["name"], arguments, id.format(number))


def _json(text: str, at: int, number: int) -> tuple[Any, int]:
    """A JSON value and its end."""
    try:
        value, length = json.JSONDecoder().raw_decode(text[at:])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tool call {number} is not valid JSON ({error})") from error
    return value, at + length


def _hermes(text: str, at: int, number: int, tools: Tools) -> tuple[list[ToolCall], int]:
    value, at = _json(text, at, number)
    close = re.compile(r"\s*(?:</tool_call>|\Z)").match(text, at)
    if close is None:
        raise ValueError(f"tool call {number} is not valid JSON (Extra data: {text[at : at + 20]!r})")
    return [as_call(value, number)], close.end()


def _llama(text: str, at: int, number: int, tools: Tools) -> tuple[list[ToolCall], int]:
    calls: list[ToolCall] = []
    while True:
        value, at = _json(text, at, number + len(calls))
        calls.append(as_call(value, number + len(calls)))
        more = re.compile(r"\s*;\s*(?=\{)").match(text, at)
        if more is None:
            return calls, at
        at = more.end()


def _mistral(text: str, at: int, number: int, tools: Tools) -> tuple[list[ToolCall], int]:
    id = "call{:05}"  # these templates refuse an id of other than nine letters and digits
    if text.startswith("[", at):
        values, at = _json(text, at, number)
        return [as_call(value, number + i, id) for i, value in enumerate(values)], at
    named = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?(?:\[ARGS\])?\s*").match(text, at)
    if named is None:
        raise ValueError(f"tool call {number} has no name")
    arguments, at = _json(text, named.end(), number)
    return [as_call({"name": named[1], "arguments": arguments}, number, id)], at


def _xml(text: str, at: int, number: int, tools: Tools) -> tuple[list[ToolCall], int]:
    head = re.compile(r"<function=([^>\s]+)>\s*").match(text, at)
    if head is None:
        raise ValueError(f"tool call {number} has no <function=...>")
    parameters = next((tool.get("parameters") or {} for tool in tools if tool["name"] == head[1]), {})
    schemas = parameters.get("properties") or {}
    arguments, at = {}, head.end()
    given = re.compile(
        r"<parameter=([^>]+)>\n?(.*?)\n?</parameter>\s*(?=<parameter=|</function>|</tool_call>|\Z)", re.DOTALL
    )
    while match := given.match(text, at):
        arguments[match[1]] = _typed(match[2], schemas.get(match[1], {}))
        at = match.end()
    close = re.compile(r"(?:</function>\s*)?(?:</tool_call>|\Z)|</function>").match(text, at)
    if close is None:
        raise ValueError(f"tool call {number} ({head[1]}) breaks off at {text[at : at + 20]!r}")
    return [ToolCall(head[1], arguments, f"call_{number}")], close.end()


def _pythonic(text: str, at: int, number: int, tools: Tools) -> tuple[list[ToolCall], int]:
    if not text.startswith("[", at):
        raise ValueError(f"tool call {number} is not in a list: {text[at : at + 20]!r}")
    calls: list[ToolCall] = []
    at = _past_comma(text, at + 1)
    while named := re.compile(r"([\w.-]+)\(\s*").match(text, at):
        place = f"tool call {number + len(calls)} ({named[1]})"
        arguments, at = {}, named.end()
        while key := re.compile(r"""([^\s=,()[\]{}'"]+)\s*=\s*""").match(text, at):
            end = _end_of_value(text, key.end())
            value = text[key.end() : end]
            try:
                arguments[key[1]] = _literal(value)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{place}: {key[1]} is not a Python or JSON value: {value[:40]!r}") from error
            at = _past_comma(text, end)
        if not text.startswith(")", at):
            raise ValueError(f"{place} has no name=value at {text[at : at + 20]!r}")
        calls.append(ToolCall(named[1], arguments, f"call_{number + len(calls)}"))
        at = _past_comma(text, at + 1)
    close = re.compile(r"\]\s*(?:<\|tool_call_end\|>)?").match(text, at)
    if close is None:
        raise ValueError(f"tool call {number + len(calls)} is not a call: {text[at : at + 20]!r}")
    return calls, close.end()


def _past_comma(text: str, at: int) -> int:
    rest = text[at:].lstrip().removeprefix(",").lstrip()
    return len(text) - len(rest)


def _end_of_value(text: str, at: int) -> int:
    """Where the value that begins here ends: at a comma or bracket outside its own strings and brackets."""
    depth = 0
    for match in re.compile(r"""(?s)"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[\[({,})\]]""").finditer(text, at):
        if match[0] in ("[", "(", "{"):
            depth += 1
        elif match[0] in (",", "}", ")", "]"):
            if depth == 0:
                return match.start()
            depth -= match[0] != ","
    return len(text)


def _literal(text: str) -> Any:
    """The value of a Python or a JSON literal, as JSON holds it; raises ValueError or TypeError if it is neither."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        try:
            return json.loads(text)  # true, false, null
        except RecursionError as error:
            raise ValueError(str(error)) from error
    return json.loads(json.dumps(value))


KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
"""JSON schema's types but for strings."""


def _typed(text: str, schema: dict[str, Any]) -> Any:
    """A value that was written as text, in a type that the schema allows; the text itself if it is of none of them."""
    choices = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    kinds: list[type] = []
    for choice in choices:
        names = choice.get("type", [])
        kinds += [kind for name in ([names] if isinstance(names, str) else names) for kind in KINDS.get(name, ())]
    if not kinds:
        return text
    try:
        value = _literal(text)
    except (ValueError, TypeError):
        return text
    if isinstance(value, float) and value.is_integer() and float not in kinds:
        value = int(value)  # 3.0 is an integer, says JSON schema
    return value if type(value) in kinds else text


NOTATIONS = {
    "mistral": Notation(
        template=r"\[TOOL_CALLS\]",
        start=re.compile(r"\[TOOL_CALLS\]\s*"),
        close=re.compile(r"(?=\[TOOL_CALLS\])"),
        read=_mistral,
        form='[TOOL_CALLS][{"name": "...", "arguments": {...}}] or [TOOL_CALLS]name[ARGS]{...}',
    ),
    "xml": Notation(
        template="<function=",
        start=re.compile(r"<tool_call>\s*|(?=<function=)"),
        close=re.compile(r"</tool_call>"),
        read=_xml,
        form="<tool_call><function=...><parameter=...>...</parameter></function></tool_call>",
    ),
    "pythonic": Notation(
        template=r"<\|tool_(?:call|list)_start\|>|\[func_name1\(",
        start=re.compile(r"<\|tool_call_start\|>\s*|<\|python_tag\|>\s*(?=\[)|\A\s*(?=\[\s*[\w.-]+\()"),
        close=re.compile(r"<\|tool_call_end\|>"),
        read=_pythonic,
        form='[name(argument="...", other=1)]',
    ),
    "hermes": Notation(
        template="<tool_call>",
        start=re.compile(r"<tool_call>\s*"),
        close=re.compile(r"</tool_call>"),
        read=_hermes,
        form='<tool_call>{"name": "...", "arguments": {...}}</tool_call>',
    ),
    "llama": Notation(
        template=r"""<\|python_tag\|>|"parameters": """,
        # without its mark, a call is the whole answer; other JSON is an answer like any
        start=re.compile(r"""<\|python_tag\|>\s*|\A\s*(?=\{[^{}]*"(?:parameters|arguments)"\s*:)"""),
        close=re.compile(r"\Z"),
        read=_llama,
        form='{"name": "...", "parameters": {...}}',
    ),
}
