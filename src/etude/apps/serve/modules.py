"""An agent's modules as an MCP server: the memory and the prompts are here, the policy is the client's.

Orak's second kind of server (arXiv:2506.03610): `observe` takes a state in, `prompt` says what to ask the policy for a
module, `respond` takes its answer. `python -m etude.apps.serve.modules` serves one episode over stdio, for
`agents/loops/modular` or any other MCP client.
"""

from collections.abc import Mapping
from typing import Any

from etude.agents.loops.modular import Memory
from etude.apps.serve.mcp import over_stdio
from etude.core.errors import EtudeError, missing_extra

TOOLS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "observe": ("Take in a new state of the game.", ("state",)),
    "prompt": ("What to ask the language model for a module now; nothing where there is nothing to ask.", ("module",)),
    "respond": ("Take in what the language model answered.", ("module", "answer")),
}


def server() -> Any:
    """An `mcp.server.Server` of one memory. Raises MissingExtra where the package `mcp` is not installed."""
    try:
        from mcp import types
        from mcp.server import Server
    except ImportError as error:
        raise missing_extra("mcp", "mcp") from error
    memory = Memory()

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=name,
                    description=description,
                    input_schema={
                        "type": "object",
                        "properties": {argument: {"type": "string"} for argument in arguments},
                        "required": list(arguments),
                    },
                )
                for name, (description, arguments) in TOOLS.items()
            ]
        )

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        given = params.arguments or {}
        try:
            if params.name not in TOOLS or set(given) != set(TOOLS[params.name][1]):
                raise EtudeError(f"no tool {params.name!r} with arguments {sorted(given)}; list_tools tells")
            text, wrong = await getattr(memory, params.name)(**given) or "", False
        except EtudeError as error:
            text, wrong = str(error), True
        return types.CallToolResult(content=[types.TextContent(text=text)], is_error=wrong)

    return Server("etude/modules", on_list_tools=list_tools, on_call_tool=call_tool)


if __name__ == "__main__":
    over_stdio(server())
