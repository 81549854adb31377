"""A real MCP server with a shelf that it keeps in memory: `python mcp_server.py`, over HTTP with `http PORT`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio
from mcp import MCPError, types
from mcp.server import Server
from mcp.server.stdio import stdio_server

SHAPE = {"type": "object", "properties": {"size": {"$ref": "#/$defs/size"}}, "$defs": {"size": {"type": "integer"}}}
PICTURE = types.ImageContent(data="aGVsbG8=", mime_type="image/png")
KINDS = [
    types.TextContent(text="words"),
    PICTURE,
    types.AudioContent(data="aGVsbG8h", mime_type="audio/wav"),
    types.ResourceLink(name="notes", uri="file:///notes.txt", description="what was noted"),
    types.EmbeddedResource(resource=types.TextResourceContents(uri="file:///a.txt", text="inside")),
    types.EmbeddedResource(resource=types.BlobResourceContents(uri="file:///b", blob="aGk=", mime_type="font/ttf")),
]


def tool(name: str, schema: dict[str, Any] | None = None, **types_of: str) -> types.Tool:
    properties = {argument: {"type": kind} for argument, kind in types_of.items()}
    shape = {"type": "object", "properties": properties, "required": list(properties)}
    return types.Tool(name=name, description=f"Do {name}.", input_schema=schema or shape)


PAGES = [
    [tool("add", item="string"), tool("items"), tool("odd", SHAPE), tool("free", {"type": "object"})],
    [tool(name) for name in ("kinds", "structured", "refuse", "fail", "die", "sleep", "told", "where")],
]
PAGES[0][-1].input_schema["additionalProperties"] = True


async def list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    page = int(params.cursor) if params and params.cursor else 0
    return types.ListToolsResult(tools=PAGES[page], next_cursor=None if page + 1 == len(PAGES) else str(page + 1))


async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    connection = context.session._connection
    shelf = connection.state.setdefault("shelf", [])
    arguments, name = params.arguments or {}, params.name
    if name == "kinds":
        return types.CallToolResult(content=KINDS)
    if name == "structured":
        return types.CallToolResult(content=[], structured_content={"n": 1})
    if name == "refuse":
        raise MCPError(types.INVALID_PARAMS, "not on Sundays")
    if name == "fail":
        raise MCPError(types.INTERNAL_ERROR, "the shelf fell")
    if name == "die":
        print("Traceback: out of wood", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "sleep":
        await anyio.sleep(60)
    if name == "add" and not arguments["item"]:
        return types.CallToolResult(content=[types.TextContent(text="an item has a name")], is_error=True)
    if name == "add":
        shelf.append(arguments["item"])
    headers = context.request.headers if context.request else {}
    text = {
        "told": f"{os.environ.get('SHOP_KEY')} {headers.get('authorization')}",
        "where": f"{Path.cwd() / 'x'} {sorted(os.listdir())}",
        "odd": str(arguments),
        "free": str(arguments),
    }.get(name, ", ".join(shelf) or "nothing")
    return types.CallToolResult(content=[types.TextContent(text=text)])


server = Server("shelf", on_list_tools=list_tools, on_call_tool=call_tool)


async def over_stdio() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    if sys.argv[1:] == ["late"]:
        time.sleep(60)
    elif sys.argv[1:]:
        import uvicorn

        uvicorn.run(server.streamable_http_app(), port=int(sys.argv[2]), log_level="error")
    else:
        anyio.run(over_stdio)
