"""The operations of an HTTP service, as its OpenAPI description lists them, with tasks and a score of one's own.

OpenAPI 3.0 to 3.2 (spec.openapis.org/oas), in JSON or YAML. Each operation becomes a tool: its parameters in path,
query, header and cookie are arguments by their names, its body is the argument `body`. All episodes share one service,
and `setup` must keep them apart: by an account of its own for each episode, say, in `state.headers`.

Departures: bodies are JSON, forms or text; a description is one file; callbacks and links are left out; an answer of
status 4xx is the agent's mistake, except 401 where the settings give headers, 408 and 429, which like 5xx are the
service's.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import httpx
import yaml

from etude.core.errors import EnvironmentFault, FormatError, PartError, suggest
from etude.environments.functions import ToolError
from etude.environments.sources import SourceWorld, State, checked, inline

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
SILENT = ("accept", "content-type", "authorization")  # header parameters that a description cannot ask for (4.8.12.1)
NOISE = ("xml", "discriminator", "externalDocs", "example", "readOnly", "writeOnly")


def openapi(
    description: str | Path | Mapping[str, Any],
    *,
    tasks: str | Path | Sequence[Mapping[str, Any]],
    score: Callable[..., float | Awaitable[float]],
    base_url: str = "",
    show: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
    name: str = "openapi",
    call_seconds: float = 30.0,
    **settings: Any,
) -> SourceWorld:
    """A world whose tools are an HTTP service's operations.

    description: a file, an address that begins with http, or the description itself.
    base_url: where the service is, if not where the description says.
    headers: sent with every request, such as `{"Authorization": "Bearer ${SHOP_TOKEN}"}`.
    tasks, score, setup, show, ...: what `SourceWorld` is made from.

    Raises FormatError for what is no description, PartError for an operation in `show` that is not there.
    """
    whole, place = _read(description)
    version = str(whole.get("openapi", ""))
    if not version.startswith("3."):
        raise FormatError(f"{place} says openapi: {version or 'nothing'}; a description of version 3 is needed")
    given = {header.lower() for header in headers or {}}
    operations: dict[str, Operation] = {}
    unfit: dict[str, str] = {}
    for path, item in whole.get("paths", {}).items():
        item = inline(item, whole) if "$ref" in item else item
        for method in METHODS:
            if method in item:
                operation = Operation(_name(method, path, item[method]), method, path)
                server = (item[method].get("servers") or item.get("servers") or whole.get("servers") or [{}])[0]
                operation.base = base_url or _base(server, description)
                try:
                    operation.read(item.get("parameters", []), item[method], whole, given)
                except FormatError as error:
                    unfit[operation.name] = str(error)
                    continue
                if operation.name in operations:
                    raise FormatError(f"{place}: two operations are called {operation.name!r}; give operationIds")
                operations[operation.name] = operation
    for one in show if show is not None else unfit:
        if one in unfit:
            raise FormatError(f"{place}, operation {one!r}: {unfit[one]}; leave it out by show=[...]")
        if one not in operations:
            raise PartError(f"world {name!r}: show names no operation {one!r}; {suggest(one, operations)}")
    for operation in operations.values():
        if not operation.base.startswith(("http://", "https://")):
            raise FormatError(f"{place} does not say where {operation.name!r} is served; give base_url='https://...'")
    source = partial(Service, operations=operations, call_seconds=call_seconds)
    return SourceWorld(
        source, tasks, score, show=show, headers=headers, name=name, call_seconds=call_seconds, **settings
    )


def _read(description: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The description, and how to call it in errors."""
    if isinstance(description, Mapping):
        return description, "the description"
    place = str(description)
    if place.startswith(("http://", "https://")):
        try:
            text = httpx.get(place, follow_redirects=True).raise_for_status().text
        except httpx.HTTPError as error:
            raise FormatError(f"{place} cannot be read: {error}") from error
    else:
        text = Path(description).read_text(encoding="utf-8")
    try:
        whole = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise FormatError(f"{place} is neither JSON nor YAML: {error}") from error
    if not isinstance(whole, dict):
        raise FormatError(f"{place} holds {type(whole).__name__}, not a description")
    return whole, place


def _name(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """The operation's id, or its method and path, in the characters that all notations of calls allow."""
    return re.sub(r"\W+", "_", operation.get("operationId") or f"{method} {path}", flags=re.ASCII).strip("_")


def _base(server: Mapping[str, Any], description: Any) -> str:
    defaults = {name: str(variable["default"]) for name, variable in server.get("variables", {}).items()}
    url = re.sub(r"\{(\w+)\}", lambda found: defaults.get(found[1], found[0]), server.get("url", ""))
    return urljoin(description, url) if isinstance(description, str) and description.startswith("http") else url


# -- operations ------------------------------------------------------------------------------------------------------


@dataclass
class Operation:
    """One operation: what the agent is shown of it, and how a call of it becomes a request."""

    name: str
    method: str
    path: str
    base: str = ""
    schema: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Argument -> the parameter that it fills."""
    media: str = ""
    """Media type of the body; '' for none."""

    def read(
        self,
        shared: Sequence[Any],
        operation: Mapping[str, Any],
        whole: Mapping[str, Any],
        given: set[str],
    ) -> None:
        """Take over what the description says. `given` are the headers that the settings send. Raises FormatError."""
        parameters = {(p["in"], p["name"]): p for p in inline([*shared, *operation.get("parameters", [])], whole)}
        properties: dict[str, Any] = {}
        required: list[str] = []
        for (place, name), parameter in parameters.items():
            if place == "header" and name.lower() in (*SILENT, *given):
                continue
            if parameter.get("style") in ("label", "matrix"):
                raise FormatError(f"parameter {name!r} has style {parameter['style']!r}, which nothing here writes")
            argument = name if name not in self.places else f"{place}_{name}"
            self.places[argument] = parameter
            schema = parameter.get("schema") or next(iter(parameter.get("content", {}).values()), {}).get("schema", {})
            note = {"description": parameter["description"]} if "description" in parameter else {}
            properties[argument] = _plain(schema) | note
            if parameter.get("required") or place == "path":
                required.append(argument)
        body = inline(operation.get("requestBody", {}), whole)
        if body.get("content"):
            self.media = next((m for m in body["content"] if _kind(m)), "")
            if not self.media:
                raise FormatError(f"its body is {', '.join(body['content'])}; JSON, forms and text can be sent")
            if "body" in properties:
                raise FormatError("a parameter is called 'body', as the body is")
            properties["body"] = _plain(body["content"][self.media].get("schema", {}))
            if body.get("required"):
                required.append("body")
        said = [operation.get("summary", ""), operation.get("description", "")]
        self.schema = {
            "name": self.name,
            "description": "\n".join(dict.fromkeys(text.strip() for text in said if text)),
            "parameters": checked(self.name, {"type": "object", "properties": properties, "required": required}),
        }

    def request(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What `httpx.AsyncClient.request` takes."""
        path, query, headers, cookies = self.path, [], {}, []
        for argument, parameter in self.places.items():
            if argument not in arguments:
                continue
            pairs, name = _pairs(parameter, arguments[argument]), parameter["name"]
            if parameter["in"] == "query":
                query += pairs
            elif parameter["in"] == "cookie":
                cookies += pairs
            elif parameter["in"] == "path":
                text = quote(pairs[0][1], safe=",=")
                if text in ("", ".", ".."):
                    raise ToolError(f"{self.name}: argument {argument!r} is {arguments[argument]!r}, which is no name")
                path = path.replace(f"{{{name}}}", text)
            else:
                headers[name] = pairs[0][1]
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={quote(text)}" for name, text in cookies)
        for name, text in headers.items():
            if not (text.isascii() and text.isprintable()):
                raise ToolError(f"{self.name}: {text!r} cannot be sent in the header {name}; use plain characters")
        made = {"method": self.method, "url": self.base.rstrip("/") + path, "params": query, "headers": headers}
        if "body" in arguments:
            made |= self._body(arguments["body"])
            headers["Content-Type"] = self.media
        return made

    def _body(self, body: Any) -> dict[str, Any]:
        if _kind(self.media) == "json":
            return {"content": json.dumps(body, ensure_ascii=False)}
        if _kind(self.media) == "form" and isinstance(body, dict):
            return {"data": {name: [_text(v) for v in (x if isinstance(x, list) else [x])] for name, x in body.items()}}
        return {"content": _text(body)}


def _kind(media: str) -> str:
    """How a body of this type is written; '' where it cannot be."""
    media = media.partition(";")[0].strip().lower()
    if media in ("application/json", "*/*") or media.endswith("+json"):
        return "json"
    return "form" if media == "application/x-www-form-urlencoded" else "text" if media.startswith("text/") else ""


def _pairs(parameter: Mapping[str, Any], value: Any) -> list[tuple[str, str]]:
    """A value as (name, text) pairs, in the parameter's style; one pair in a path or a header."""
    name = parameter["name"]
    if "content" in parameter:
        return [(name, json.dumps(value, ensure_ascii=False))]
    many = parameter["in"] in ("query", "cookie")
    style = parameter.get("style", "form" if many else "simple")
    explode = parameter.get("explode", style == "form")
    if isinstance(value, dict) and style == "deepObject":
        return [(f"{name}[{key}]", _text(item)) for key, item in value.items()]
    if isinstance(value, dict) and explode and many:
        return [(key, _text(item)) for key, item in value.items()]
    if isinstance(value, dict):
        pairs = [(key, _text(item)) for key, item in value.items()]
        return [(name, ",".join("=".join(pair) if explode else ",".join(pair) for pair in pairs))]
    if isinstance(value, list) and explode and many:
        return [(name, _text(item)) for item in value]
    if isinstance(value, list):
        between = {"spaceDelimited": " ", "pipeDelimited": "|"}.get(style, ",")
        return [(name, between.join(map(_text, value)))]
    return [(name, _text(value))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(schema: Any) -> Any:
    """An OpenAPI schema as JSON schema: without what the service alone writes, and 3.0's own words as 3.1 has them.

    >>> _plain({"type": "integer", "nullable": True, "minimum": 0, "exclusiveMinimum": True, "xml": {}})
    {'type': ['integer', 'null'], 'exclusiveMinimum': 0}
    """
    if not isinstance(schema, Mapping):
        return schema
    made = {key: value for key, value in schema.items() if key not in NOISE and not key.startswith("x-")}
    for key in ("items", "additionalProperties", "not"):
        if key in made:
            made[key] = _plain(made[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in made:
            made[key] = [_plain(one) for one in made[key]]
    if "properties" in made:
        hidden = {name for name, one in made["properties"].items() if isinstance(one, Mapping) and one.get("readOnly")}
        made["properties"] = {name: _plain(one) for name, one in made["properties"].items() if name not in hidden}
        if "required" in made:
            made["required"] = [name for name in made["required"] if name not in hidden]
    for bound in ("Minimum", "Maximum"):
        if isinstance(exclusive := made.get(f"exclusive{bound}"), bool):
            del made[f"exclusive{bound}"]
            if exclusive:
                made[f"exclusive{bound}"] = made.pop(bound.lower())
    if made.pop("nullable", False):
        if not isinstance(made.get("type"), str):
            return {"anyOf": [made, {"type": "null"}]}
        made["type"] = [made["type"], "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    return made


# -- requests --------------------------------------------------------------------------------------------------------


class Service:
    """One episode's client of the service, a `Source`."""

    def __init__(self, state: State, *, operations: Mapping[str, Operation], call_seconds: float):
        self.state, self.operations, self.call_seconds = state, operations, call_seconds
        self.client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        # a redirect is not followed: it could lead the headers of the settings elsewhere
        self.client = httpx.AsyncClient(timeout=self.call_seconds)

    async def tools(self) -> list[dict[str, Any]]:
        return [operation.schema for operation in self.operations.values()]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if name not in self.operations:
            raise ToolError(f"no operation {name!r}; {suggest(name, self.operations)}")
        request = self.operations[name].request(arguments)
        request["headers"] |= self.state.headers
        assert self.client is not None
        try:
            answer = await self.client.request(**request)
        except httpx.HTTPError as error:
            raise EnvironmentFault(f"{request['url']}: {type(error).__name__}: {error}") from error
        status = f"HTTP {answer.status_code} {answer.reason_phrase}".rstrip()
        said = _said(answer)
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            raise EnvironmentFault(f"{request['url']} answered {status}: {said}")
        if answer.status_code == 401 and self.state.headers:
            raise EnvironmentFault(f"{request['url']} answered {status}; check headers={list(self.state.headers)}")
        if answer.status_code >= 400:
            raise ToolError(f"{status}: {said}" if said else status)
        if answer.status_code >= 300:
            return f"{status}: {answer.headers.get('location', '')}"
        return said or status

    async def close(self) -> None:
        if self.client is not None:
            await self.client.aclose()


def _said(answer: httpx.Response) -> str:
    """An answer's body as words."""
    media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media or media.startswith("text/") or re.search(r"\b(json|xml|yaml|javascript|urlencoded)$", media):
        return answer.text
    return f"[{media}, {len(answer.content)} bytes]" if answer.content else ""
