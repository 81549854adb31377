"""Typed functions as tools: their JSON schemas, and calls that are checked and read by these.

`tool` describes a typed Python function. `check_call` says what is wrong with a call, in words that say how to mend it;
`coerce_call` reads its arguments as the types that the schema asks for.
"""

import dataclasses
import enum
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

import numpy as np
from jsonschema import Draft202012Validator

from etude.core.errors import EnvironmentFault, EtudeError, suggest
from etude.trajectory import ToolCall

F = TypeVar("F", bound=Callable[..., Any])
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
PLAIN[type(None)] = "null"
HIDDEN = ("self", "cls", "state")


class ToolError(EtudeError):
    """The agent's mistake, such as an unknown id: its text is what the agent reads as the call's result."""


# -- functions -> schemas --------------------------------------------------------------------------------------------


def tool(function: F) -> F:
    """Make a typed function, sync or async, a tool: `.schema` is `{name, description, parameters}`; it stays callable.

    The first paragraph of the docstring is the description. An argument is described by a line `name: text`, or in the
    Google or NumPy style. A first parameter called `self` or `state` is not shown to the agent.

    Raises EnvironmentFault for an argument without a type, or with one that JSON cannot hold.

    >>> @tool
    ... def stock(item: str, floor: int = 0) -> int:
    ...     '''How many of an item are on the shelf.
    ...
    ...     item: the item's name
    ...     '''
    ...     return 3
    >>> stock.schema["parameters"]["properties"]
    {'item': {'type': 'string', 'description': "the item's name"}, 'floor': {'type': 'integer', 'default': 0}}
    >>> stock.schema["parameters"]["required"]
    ['item']
    """
    parameters = _visible(function)
    hints = hints_of(function)
    description, notes = _docstring(function, list(parameters))
    properties = {}
    for name, parameter in parameters.items():
        place = f"tool {function.__name__!r}, argument {name!r}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise EnvironmentFault(f"{place}: a tool is called by name; declare each argument as `name: type`")
        if name not in hints:
            raise EnvironmentFault(f"{place} has no type; write for example `{name}: str`")
        properties[name] = json_type(hints[name], place)
        if name in notes:
            properties[name]["description"] = notes[name]
        if parameter.default not in (parameter.empty, None):
            properties[name]["default"] = _plain(parameter.default)
    owner: Any = getattr(function, "__func__", function)  # a bound method keeps its attributes on its function
    owner.schema = {
        "name": function.__name__,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": [name for name, parameter in parameters.items() if parameter.default is parameter.empty],
        },
    }
    return function


def json_type(hint: Any, place: str) -> dict[str, Any]:
    """The JSON schema of a Python type; `place` names it in the EnvironmentFault for a type that JSON cannot hold.

    >>> json_type(list[Literal["s", "m"]] | None, "")
    {'anyOf': [{'type': 'array', 'items': {'enum': ['s', 'm']}}, {'type': 'null'}]}
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in (tuple, set):
        return {"type": "array"}
    if isinstance(hint, type) and hint in PLAIN:
        return {"type": PLAIN[hint]}
    if origin is Literal:
        return {"enum": list(args)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if origin in (Union, types.UnionType):
        options = [json_type(arg, place) for arg in args]
        if all(set(option) == {"type"} for option in options):
            return {"type": [option["type"] for option in options]}
        return {"anyOf": options}
    if origin in (list, set) or (origin is tuple and args[1:] == (...,)):
        return {"type": "array", "items": json_type(args[0], place)}
    if origin is dict and args[0] is str:
        return {"type": "object", "additionalProperties": json_type(args[1], place)}
    if dataclasses.is_dataclass(hint):
        fields = [f for f in dataclasses.fields(hint) if f.init]
        hints = typing.get_type_hints(hint)
        return {
            "type": "object",
            "properties": {f.name: json_type(hints[f.name], f"{place}.{f.name}") for f in fields},
            "required": [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING],
            "additionalProperties": False,
        }
    raise EnvironmentFault(
        f"{place} has type {hint!r}, which JSON cannot hold; use str, int, float, bool, Literal, Enum, list[...], "
        "dict[str, ...], a dataclass, or a union of these"
    )


def _visible(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters), "")
    if first in HIDDEN:
        del parameters[first]
    return parameters


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's types by argument. Raises EnvironmentFault for one that is written as text and cannot be found."""
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise EnvironmentFault(
            f"tool {function.__name__!r}: {error}; a type written as text must be defined at the module's top level"
        ) from error


def _docstring(function: Callable[..., Any], arguments: list[str]) -> tuple[str, dict[str, str]]:
    """The first paragraph, and what is said of each argument."""
    lines = (inspect.getdoc(function) or "").splitlines()
    numpy_style = re.search(r"^\s*Parameters\n\s*---", "\n".join(lines), re.MULTILINE)
    heading = re.compile(rf"(\s*)(?::param )?({'|'.join(map(re.escape, arguments)) or '$^'})(?: \(.*?\))?\s*:\s*(.*)")
    notes: dict[str, str] = {}
    for i, line in enumerate(lines):
        match = heading.fullmatch(line)
        if match is None:
            continue
        indent, name, text = match.groups()
        below = [] if numpy_style else [text]  # NumPy writes the type on the heading's line and the words below
        for following in lines[i + 1 :]:
            if not following.strip() or len(following) - len(following.lstrip()) <= len(indent):
                break
            below.append(following.strip())
        notes.setdefault(name, " ".join(filter(None, below)))
    first = []
    for line in lines:
        if not line.strip() or heading.fullmatch(line):
            break
        first.append(line.strip())
    return " ".join(first), {name: note for name, note in notes.items() if note}


def _plain(value: Any) -> Any:
    """What json.dumps cannot write by itself."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (set, tuple)):
        return list(value)
    return value if isinstance(value, (str, int, float, list, dict)) or value is None else str(value)


def written(value: Any) -> str:
    """A tool's result as the JSON that the agent reads."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), default=_plain)


def typed(hint: Any, value: Any) -> Any:
    """A checked JSON value as the Python value that the function's type asks for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for arg in args:
            if Draft202012Validator(json_type(arg, "")).is_valid(value):
                return typed(arg, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(**{name: typed(hints[name], item) for name, item in value.items()})
    if hint in (tuple, set):
        return hint(value)
    if origin in (list, set, tuple):
        return origin(typed(args[0], item) for item in value)
    if origin is dict:
        return {key: typed(args[1], item) for key, item in value.items()}
    return float(value) if hint is float else value


# -- calls -----------------------------------------------------------------------------------------------------------


def check_call(tools: Sequence[Mapping[str, Any]], call: ToolCall) -> str:
    """Why a call cannot be run, in words that say how to mend it; '' where it can, once `coerce_call` has read it.

    >>> check_call([{"name": "stock", "parameters": {"properties": {}}}], ToolCall("stok", {}))
    "no tool 'stok'; did you mean 'stock'? There are: stock"
    """
    schemas = {schema["name"]: schema["parameters"] for schema in tools}
    if call.name not in schemas:
        return f"no tool {call.name!r}; {suggest(str(call.name), schemas)}"
    if not isinstance(call.arguments, dict):
        return f"{call.name}: arguments are {show(call.arguments)}; expected an object of arguments by name"
    schema = schemas[call.name]
    allowed = schema["properties"]
    closed = not schema.get("additionalProperties", False)  # a schema that does not say takes no others
    for name in call.arguments:
        if closed and name not in allowed:
            return f"{call.name} takes no argument {name!r}; {suggest(str(name), allowed)}"
    absent = [name for name in schema.get("required", ()) if name not in call.arguments]
    if absent:
        return f"{call.name} needs {', '.join(map(repr, absent))}; its arguments are: {', '.join(allowed)}"
    try:
        json.dumps(call.arguments, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair; files and processes take none
        half = error.object[error.start : error.end]
        return f"{call.name}: the arguments hold {half!r}, half of a character; write whole ones"
    arguments = coerce_call(tools, call).arguments
    for error in Draft202012Validator(schema).iter_errors(arguments):
        place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in error.absolute_path).lstrip(".")
        if error.validator == "enum":
            wanted = suggest(str(error.instance), map(str, error.validator_value))
        elif error.validator == "type":
            kinds = error.validator_value
            wanted = f"expected {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
        else:
            return f"{call.name}: argument {place!r}: {error.message}"
        return f"{call.name}: argument {place!r} is {show(error.instance)}; {wanted}"
    return ""


def coerce_call(tools: Sequence[Mapping[str, Any]], call: ToolCall) -> ToolCall:
    """The call with arguments read as their schema's types where nothing is lost by it: "3" as 3, 417 as "417".

    >>> schema = {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}
    >>> coerce_call([schema], ToolCall("f", {"n": "3"})).arguments
    {'n': 3}
    """
    properties = next(schema["parameters"]["properties"] for schema in tools if schema["name"] == call.name)
    arguments = {name: _coerce(properties.get(name, {}), value) for name, value in call.arguments.items()}
    return dataclasses.replace(call, arguments=arguments)


def _coerce(schema: Mapping[str, Any], value: Any) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):  # a union: as it is where it fits, else the first kind that it can be read as
        readings = [value] + [_coerce({**schema, "type": one}, value) for one in kind]
        return next((r for r in readings if Draft202012Validator({"type": kind}).is_valid(r)), value)
    if isinstance(value, str) and kind in ("integer", "number", "boolean", "array", "object"):
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            return value
        value = read if Draft202012Validator({"type": kind}).is_valid(read) else value
    if isinstance(value, float) and kind in ("integer", "number") and not math.isfinite(value):
        return str(value)  # not JSON; left as text, so that the check refuses it
    if isinstance(value, float) and kind == "integer" and value.is_integer():
        return int(value)
    if kind == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if kind == "array" and isinstance(value, list):
        return [_coerce(schema.get("items", {}), item) for item in value]
    if kind == "object" and isinstance(value, dict):
        return {name: _coerce(schema.get("properties", {}).get(name, {}), item) for name, item in value.items()}
    return value


def show(value: Any) -> str:
    """A JSON value and its type as an error quotes them, cut after 60 characters."""
    kind = "boolean" if isinstance(value, bool) else PLAIN.get(type(value), type(value).__name__)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"
