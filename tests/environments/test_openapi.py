"""Worlds made of OpenAPI descriptions, played against a real HTTP server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import yaml

import etude
from etude.core.errors import FormatError, PartError
from etude.environments.openapi import openapi
from etude.environments.sources import SourceSession, SourceWorld, State, inline
from etude.policies.scripted import scripted
from etude.trajectory import Boundary, Message, ToolCall

DESCRIPTION = """
openapi: 3.0.3
info: {title: Shop, version: "1"}
servers:
  - url: http://{host}/v1
    variables: {host: {default: "unknown.invalid"}}
paths:
  /items/{item}:
    parameters:
      - $ref: "#/components/parameters/item"
    get:
      operationId: getItem
      summary: Look at an item.
      description: |
        Its count.
      parameters:
        - {name: unit, in: query, description: how to count, schema: {type: string, enum: [pieces, boxes]}}
    put:
      operationId: putItem
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: "#/components/schemas/Item"}}
  /echo/{path}:
    post:
      parameters:
        - {name: path, in: path, required: true, schema: {type: array, items: {type: string}}}
        - {name: tags, in: query, schema: {type: array, items: {type: string}}}
        - {name: codes, in: query, explode: false, schema: {type: array, items: {type: integer}}}
        - {name: page, in: query, style: deepObject, schema: {type: object, properties: {size: {type: integer}}}}
        - {name: where, in: query, content: {application/json: {schema: {type: object}}}}
        - {name: new, in: query, schema: {type: boolean}}
        - {name: path, in: query, schema: {type: string}}
        - {name: X-Trace, in: header, schema: {type: string}}
        - {name: Authorization, in: header, required: true, schema: {type: string}}
        - {name: visit, in: cookie, schema: {type: string}}
      requestBody:
        content:
          application/x-www-form-urlencoded: {schema: {type: object}}
  /status/{code}:
    get:
      operationId: status
      parameters: [{name: code, in: path, required: true, schema: {type: integer}}]
  /login:
    post:
      operationId: login
components:
  parameters:
    item: {name: item, in: path, required: true, schema: {type: string}}
  schemas:
    Thing:
      type: object
      required: [id, note]
      properties:
        id: {type: string, readOnly: true}
        note: {type: string, nullable: true}
        parts: {type: array, items: {$ref: "#/components/schemas/Thing"}}
    Item:
      description: An item.
      allOf:
        - $ref: "#/components/schemas/Thing"
        - type: object
          required: [count]
          properties:
            count: {type: integer, minimum: 0, exclusiveMinimum: true, example: 3, x-order: 1}
"""
ROWS = [{"prompt": f"There should be {n} lamps.", "count": n, "split": "train"} for n in (3, 5)]


class Shop(BaseHTTPRequestHandler):
    """Keeps the items of each account (the header X-Account), and tells of requests what it saw."""

    items: dict[tuple[str | None, str], Any] = {}  # noqa: RUF012

    def log_message(self, *args: Any) -> None: ...

    def answer(self) -> None:
        at = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        kind, _, name = at.path.removeprefix("/v1/").partition("/")
        key = (self.headers.get("X-Account"), unquote(name))
        if kind == "status":
            return self.send(int(name), {"said": "see other"}, Location="http://elsewhere.invalid/")
        if kind == "login":
            return self.send(200, b"\x00\x01", **{"Content-Type": "image/png"})
        if kind == "items" and self.command == "PUT":
            self.items[key] = json.loads(body)["count"]
            return self.send(204)
        if kind == "items" and key not in self.items:
            return self.send(404, {"error": f"no item {key[1]!r}"})
        if kind == "items":
            return self.send(200, self.items[key])
        seen = {"path": at.path, "query": parse_qsl(at.query), "body": body}
        names = ("X-Trace", "Cookie", "Authorization", "Content-Type")
        return self.send(200, seen | {n: self.headers[n] for n in names if n in self.headers})

    do_GET = do_PUT = do_POST = answer

    def send(self, status: int, body: Any = None, **headers: str) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


accounts = iter(range(1000))


def setup(state: State, row: dict) -> None:
    state.headers["X-Account"] = str(next(accounts))


async def score(state: State, answer: str, row: dict) -> float:
    try:
        return float(await state.call("getItem", item="lamp") == str(row["count"]))
    except etude.environments.functions.ToolError:  # none was put there
        return 0.0


def solve(row: dict) -> list[ToolCall | str]:
    return [ToolCall("putItem", {"item": "lamp", "body": {"note": None, "count": row["count"]}}), "Done."]


def shop(base: str, **settings: Any) -> SourceWorld:
    given = {"description": yaml.safe_load(DESCRIPTION), "tasks": ROWS, "score": score, "setup": setup, "solve": solve}
    return etude.openapi(**(given | {"base_url": base} | settings))


async def begun(world: SourceWorld) -> SourceSession:
    session = world.open()
    await session.reset(world.tasks("train")[0], 0)
    return session


async def ask(session: SourceSession, name: str, **arguments: Any) -> str:
    step = await session.step(Message("assistant", tool_calls=(ToolCall(name, arguments, "c"),)))
    return step.observation.messages[0].content


# -- what the agent is shown -----------------------------------------------------------------------------------------


async def test_operations_become_tools_with_references_resolved(base):
    tools = {tool["name"]: tool for tool in (await begun(shop(base))).tools}
    assert list(tools) == ["getItem", "putItem", "post_echo_path", "status", "login"]
    assert tools["getItem"] == {
        "name": "getItem",
        "description": "Look at an item.\nIts count.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string"},
                "unit": {"type": "string", "enum": ["pieces", "boxes"], "description": "how to count"},
            },
            "required": ["item"],
        },
    }
    assert tools["putItem"]["parameters"]["required"] == ["item", "body"]
    assert tools["putItem"]["parameters"]["properties"]["body"] == {
        "type": "object",
        "description": "An item.",
        "required": ["note", "count"],
        "properties": {
            "note": {"type": ["string", "null"]},
            "parts": {"type": "array", "items": {}},  # a thing made of things: cut where it begins anew
            "count": {"type": "integer", "exclusiveMinimum": 0},
        },
    }
    shown = list(tools["post_echo_path"]["parameters"]["properties"])
    assert shown == ["path", "tags", "codes", "page", "where", "new", "query_path", "X-Trace", "visit", "body"]


def test_parts_that_contradict_each_other_stay_apart():
    parts = [{"properties": {"n": {"minimum": 1}}}, {"properties": {"n": {"maximum": 3}}}]
    assert inline({"allOf": parts}, {}) == {"allOf": parts}
    with pytest.raises(FormatError, match=r"\$ref 'other.yaml#/a' leads nowhere in the description; bundle it"):
        inline({"$ref": "other.yaml#/a"}, {})
    with pytest.raises(FormatError, match="'#/a/b' leads nowhere"):
        inline({"$ref": "#/a/b"}, {"a": {}})
    assert inline({"$ref": "#/a~1b/0/%7Bc%7D"}, {"a/b": [{"{c}": {"type": "null"}}]}) == {"type": "null"}


# -- requests --------------------------------------------------------------------------------------------------------


async def test_arguments_go_where_the_description_says(base, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    session = await begun(shop(base, headers={"Authorization": "Bearer ${SHOP_TOKEN}"}))
    said = await ask(
        session,
        "post_echo_path",
        path=["a/b", "c d"],
        tags=["x", "y&z"],
        codes=[1, 2],
        page={"size": 5},
        where={"n": 1},
        new=True,
        query_path="q",
        body={"name": "Ann", "sizes": [1, 2], "sale": False},
        visit="v 1",
        **{"X-Trace": "t"},
    )
    assert json.loads(said) == {
        "path": "/v1/echo/a%2Fb,c%20d",
        "query": [
            ["tags", "x"], ["tags", "y&z"], ["codes", "1,2"], ["page[size]", "5"], ["where", '{"n": 1}'],
            ["new", "true"], ["path", "q"],
        ],
        "body": "name=Ann&sizes=1&sizes=2&sale=false",
        "X-Trace": "t",
        "Cookie": "visit=v%201",
        "Authorization": "Bearer ${SHOP_TOKEN}",  # the server saw the value and told it; the trajectory does not
        "Content-Type": "application/x-www-form-urlencoded",
    }  # fmt: skip
    assert "s3cret" not in repr(vars(session.world))


async def test_what_cannot_be_sent_is_told_to_the_agent(base):
    session = await begun(shop(base))
    assert "which is no name" in await ask(session, "getItem", item="..")
    assert "cannot be sent in the header X-Trace" in await ask(
        session, "post_echo_path", path=["a"], **{"X-Trace": "a\r\nb"}
    )
    assert "expected integer" in await ask(session, "putItem", item="lamp", body={"note": None, "count": "many"})
    assert "less than or equal to" in await ask(session, "putItem", item="lamp", body={"note": None, "count": 0})


# -- answers ---------------------------------------------------------------------------------------------------------


async def test_answers_are_told_in_words(base):
    session = await begun(shop(base, max_chars=50))
    assert await ask(session, "getItem", item="lamp") == (
        'error: HTTP 404 Not Found: {"error": "no item \'lam... (cut: 50 of 54 characters)'
    )
    assert await ask(session, "putItem", item="lamp", body={"note": None, "count": 2}) == "HTTP 204 No Content"
    assert await ask(session, "getItem", item="lamp") == "2"
    assert await ask(session, "login") == "[image/png, 2 bytes]"
    assert (await ask(session, "status", code=403)).startswith('error: HTTP 403 Forbidden: {"said": ')
    assert await ask(session, "status", code=302) == "HTTP 302 Found: http://elsewhere.invalid/"


def failure(world: SourceWorld, **code: int) -> Any:
    calls = [Message("assistant", tool_calls=(ToolCall("status", code),))]
    (played,) = etude.rollout(scripted(calls), world.tasks("train")[:1])
    assert played.episodes[0].reward is None
    return played.episodes[0].failure


def test_what_is_the_services_fault_ends_the_episode(base):
    for code in (500, 503, 429, 408):
        failed = failure(shop(base), code=code)
        assert failed.boundary is Boundary.TOOL
        assert f"HTTP {code}" in failed.error
    refused = failure(shop(base, headers={"X-Key": "wrong"}), code=401)
    assert "HTTP 401 Unauthorized; check headers=['X-Key', 'X-Account']" in refused.error
    assert "ConnectError" in failure(shop("http://127.0.0.1:9"), code=200).error


# -- episodes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dictionary", "yaml", "json"])
def test_solutions_reach_the_maximum_and_doing_nothing_earns_nothing(base, kind, tmp_path):
    whole = yaml.safe_load(DESCRIPTION)
    if kind != "dictionary":
        file = tmp_path / f"shop.{kind}"
        file.write_text(DESCRIPTION if kind == "yaml" else json.dumps(whole))
        whole = file
    world = shop(base, description=whole)
    for task in world.tasks("train"):
        played, idle = (
            etude.rollout(scripted(says), [task], group=2)[0].episodes
            for says in (world.solve(task, 0), [Message("assistant", "Done.")])
        )
        assert [e.reward for e in played] == [1.0, 1.0]
        assert [e.reward for e in idle] == [0.0, 0.0]


async def test_a_fork_begins_an_account_of_its_own(base):
    world = shop(base)
    session, other = await begun(world), world.open()
    await ask(session, "putItem", item="lamp", body={"note": None, "count": 2})
    at_two = await session.snapshot()
    await ask(session, "putItem", item="lamp", body={"note": None, "count": 7})
    await other.restore(at_two)
    assert await ask(other, "getItem", item="lamp") == "2"
    assert await ask(session, "getItem", item="lamp") == "7"


# -- descriptions ----------------------------------------------------------------------------------------------------


def test_servers_are_read_and_what_is_no_description_is_refused(base, tmp_path):
    whole = yaml.safe_load(DESCRIPTION)
    whole["servers"][0]["variables"]["host"]["default"] = base.removeprefix("http://").removesuffix("/v1")
    world = etude.openapi(whole, tasks=ROWS, score=score, setup=setup, solve=solve)
    (played,) = etude.rollout(scripted(world.solve(world.tasks("train")[0], 0)), world.tasks("train")[:1])
    assert played.episodes[0].reward == 1.0

    def refused(error: type[Exception], match: str, description: Any, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            openapi(description, tasks=ROWS, score=score, **settings)

    refused(FormatError, "says openapi: nothing; a description of version 3", {"swagger": "2.0"})
    refused(FormatError, "does not say where 'getItem' is served; give base_url", {**whole, "servers": []})
    refused(PartError, "show names no operation 'getItm'; did you mean 'getItem'", whole, show=["getItm"])
    upload = {"operationId": "upload", "requestBody": {"content": {"multipart/form-data": {}}}}
    whole["paths"]["/upload"] = {"post": upload}
    refused(FormatError, "'upload': its body is multipart/form-data; .*leave it out by show=", whole)
    assert openapi(whole, tasks=ROWS, score=score, show=["getItem"]).show == ["getItem"]
    whole["paths"]["/upload"] = {"post": {"operationId": "getItem"}}
    refused(FormatError, "two operations are called 'getItem'", whole)
    Path(tmp_path / "no.yaml").write_text("a: [")
    refused(FormatError, "no.yaml is neither JSON nor YAML", tmp_path / "no.yaml")


def test_a_description_is_read_from_its_address_and_says_where_the_service_is(base):
    Shop.items[None, "openapi.json"] = {**yaml.safe_load(DESCRIPTION), "servers": [{"url": "/v1"}]}
    world = etude.openapi(f"{base}/items/openapi.json", tasks=ROWS, score=score, setup=setup, solve=solve)
    (played,) = etude.rollout(scripted(world.solve(world.tasks("train")[0], 0)), world.tasks("train")[:1])
    assert played.episodes[0].reward == 1.0
