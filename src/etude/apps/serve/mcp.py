"""An environment as an MCP server: any MCP client plays its tasks, with the same tools, words and rewards.

A client plays one episode at a time. The server's tools are the session's; besides them it has `task`, which tells what
is to be done (so do the prompt `task` and the resource `etude://task`), `submit`, which gives the answer and tells the
reward, and `begin`, which begins another task, unless one task alone is served. Where the environment has a tool of
such a name, ours is called `etude_task` and so on.

Over stdio the process is the client's, and so is its episode. Over HTTP each session has an episode of its own; clients
of a protocol without sessions share one.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

from etude.core.errors import EnvironmentFault, EtudeError, PartError, missing_extra
from etude.protocols import Environment, Task
from etude.trajectory import Message, ToolCall

ADDRESS = "etude://task"
OWN = {
    "task": ("What is to be done.", {}),
    "begin": ("Begin a task, by its id, or else the next one; tells what is to be done.", {"task": "string"}),
    "submit": ("End the episode with an answer; tells its reward.", {"answer": "string"}),
}
REQUIRED = {"submit": ["answer"]}


class Play:
    """What one client plays: an episode, then perhaps another."""

    def __init__(self, tasks: "Tasks"):
        self.tasks, self.session = tasks, tasks.environment.open()
        self.first = ""
        self.reward: float | None = None
        self.earned = 0.0
        self.calls = 0
        self.turn = asyncio.Lock()  # a client may send several calls at once; an episode is one call after another

    async def begin(self, id: str = "") -> str:
        """Begin a task and say what is to be done."""
        task = self.tasks.find(id) if id else self.tasks.next()
        self.reward, self.earned = None, 0.0
        seen = await self.session.reset(task, 0)
        if seen.array is not None:
            raise PartError(f"environment {self.tasks.environment.name!r} shows arrays; MCP has words alone")
        self.first = "\n\n".join(message.content for message in seen.messages)
        return self.first

    @property
    def own(self) -> dict[str, str]:
        """The name of each of our tools -> what it does."""
        taken = {tool["name"] for tool in self.session.tools}
        there = [kind for kind in OWN if kind != "begin" or self.tasks.several]
        return {f"etude_{kind}" if kind in taken else kind: kind for kind in there}

    def schemas(self) -> list[dict[str, Any]]:
        ours = [
            {
                "name": name,
                "description": OWN[kind][0],
                "parameters": {
                    "type": "object",
                    "properties": {argument: {"type": type_} for argument, type_ in OWN[kind][1].items()},
                    "required": REQUIRED.get(kind, []),
                },
            }
            for name, kind in self.own.items()
        ]
        return [*self.session.tools, *ours]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        kind = self.own.get(name)
        if kind == "task":
            return self.first
        if kind == "begin":
            return await self.begin(str(arguments.get("task", "")))
        if self.reward is not None:
            return self._over()
        if kind == "submit":
            return await self._step(Message("assistant", str(arguments.get("answer", ""))))
        self.calls += 1
        return await self._step(Message("assistant", tool_calls=(ToolCall(name, arguments, f"call_{self.calls}"),)))

    async def _step(self, action: Message) -> str:
        step = await self.session.step(action)
        said = [message.content for message in step.observation.messages]
        self.earned += step.reward or 0.0
        if step.done:
            self.reward = self.earned  # some worlds pay step by step
            said.append(self._over())
        return "\n".join(said)

    def _over(self) -> str:
        return json.dumps({"done": True, "reward": self.reward})


class Tasks:
    """Which tasks are served: one, or those of a split, one after another for whoever asks."""

    def __init__(self, environment: Environment, split: str, task: str):
        self.environment, self.split = environment, split
        self.all = environment.tasks(split)
        if not self.all:
            raise PartError(f"environment {environment.name!r} has no tasks in split {split!r}")
        self.several = not task
        self.one = self.find(task) if task else None
        self.given = 0

    def find(self, id: str) -> Task:
        for task in self.all:
            if task.id == id:
                return task
        raise PartError(
            f"no task {id!r} in split {self.split!r} of {self.environment.name!r}; the first is {self.all[0].id!r}"
        )

    def next(self) -> Task:
        if self.one is not None:
            return self.one
        self.given += 1
        return self.all[(self.given - 1) % len(self.all)]


def server(environment: Environment, *, split: str = "train", task: str = "") -> Any:
    """An `mcp.server.Server` that serves one task, or, without one, the tasks of a split."""
    try:
        from mcp import MCPError, types
        from mcp.server import Server
    except ImportError as error:
        raise missing_extra("mcp", "mcp") from error

    tasks = Tasks(environment, split, task)
    shared: dict[str, Play] = {}

    async def play(context: Any) -> Play:
        """The play of the client that asks, begun when it first asks for anything."""
        connection = context.session._connection
        places = connection.state if connection.session_id else shared
        if "play" not in places:
            made = places["play"] = Play(tasks)
            if connection.session_id:
                connection.exit_stack.push_async_callback(made.session.close)
            try:
                async with made.turn:
                    await made.begin()
            except EtudeError as error:
                del places["play"]
                raise MCPError(types.INTERNAL_ERROR, str(error)) from error
        async with places["play"].turn:  # begun by another request, it may not be ready yet
            return places["play"]

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(name=t["name"], description=t.get("description", ""), input_schema=t["parameters"])
                for t in (await play(context)).schemas()
            ]
        )

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        played = await play(context)
        async with played.turn:
            tools = played.schemas()
            try:
                text, wrong = await played.call(params.name, params.arguments or {}), False
            except EnvironmentFault as error:  # not the agent's, and so no result of a tool
                raise MCPError(types.INTERNAL_ERROR, str(error)) from error
            except EtudeError as error:
                text, wrong = str(error), True
            if played.schemas() != tools:
                await context.session.send_tool_list_changed()
        return types.CallToolResult(content=[types.TextContent(text=text)], is_error=wrong)

    async def list_prompts(context: Any, params: Any) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[types.Prompt(name="task", description=OWN["task"][0])])

    async def get_prompt(context: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        content = types.TextContent(text=(await play(context)).first)
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)])

    async def list_resources(context: Any, params: Any) -> types.ListResourcesResult:
        resource = types.Resource(name="task", uri=ADDRESS, description=OWN["task"][0], mime_type="text/plain")
        return types.ListResourcesResult(resources=[resource])

    async def read_resource(context: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        if params.uri != ADDRESS:
            raise MCPError(types.INVALID_PARAMS, f"no resource {params.uri!r}; there is {ADDRESS!r}")
        text = types.TextResourceContents(uri=ADDRESS, text=(await play(context)).first, mime_type="text/plain")
        return types.ReadResourceResult(contents=[text])

    @contextlib.asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if "play" in shared:
                await shared["play"].session.close()

    return Server(
        f"etude/{environment.name}",
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
    )


def over_stdio(server: Any) -> None:
    """Serve the client that started this process, until it hangs up."""
    from mcp.server.lowlevel import NotificationOptions
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options(NotificationOptions(tools_changed=True)))

    asyncio.run(serve())


def over_http(server: Any, *, port: int, token: str) -> None:
    """Serve on this machine alone, to whoever brings the token. Port 0 takes a free one; stderr tells which."""
    import uvicorn

    app = server.streamable_http_app()
    logging.getLogger("mcp").setLevel(logging.WARNING)

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or hmac.compare_digest(given, f"Bearer {token}".encode()):
            await app(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
            await send({"type": "http.response.body"})

    with socket.create_server(("127.0.0.1", port)) as sock:
        address = f"http://127.0.0.1:{sock.getsockname()[1]}/mcp"
        print(f"{address}  Authorization: Bearer {token}", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(guarded, log_level="warning", lifespan="on")).run(sockets=[sock])
