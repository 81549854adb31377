"""An environment of verifiers in a worker process, whose model is whoever calls `begin` and `say`.

Run as a file by an interpreter that has verifiers, and may have no etude. The environment's own rollout is played, with
all that belongs to it: set-up, tool servers, the user, stop conditions, rewards. Its model is an endpoint in this
process that holds each request until it is told what to answer. Its harness is `Loop`: a harness may be a loop in the
same process, as long as every request of the model goes to the endpoint it was given.
"""

# pyright: reportMissingImports=false

import asyncio
import itertools
import json
import random
import sys
import threading
import types
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import httpx
import verifiers.v1 as vf
from aiohttp import web
from openai import AsyncOpenAI
from verifiers.v1.configs.agent import agent_config_fields
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.harnesses.utils.compaction import bound_tool_message
from verifiers.v1.harnesses.utils.core import gate_tool_call
from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp

HARNESS = "etude_loop"


class Loop(vf.Harness[vf.HarnessConfig]):
    """Asks the model, runs the tools that it calls, until it says something without a call; as the suite's `null`."""

    APPENDS_SYSTEM_PROMPT = SUPPORTS_MCP = SUPPORTS_RESUME = SUPPORTS_TOOL_INTERCEPTION = True
    EXECUTES_CODE = NEEDS_CONTAINER = False
    refused: dict[str, str] = {}  # noqa: RUF012
    """Calls of the last message that are not to be run, by their ids, and what is answered instead."""

    async def launch(
        self, ctx, trace, runtime, endpoint, secret, mcp_urls, data, tool_interception_url=None
    ) -> vf.ProgramResult:
        system, prompt = self.resolve_prompt(data)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        opening = [vf.UserMessage(content=prompt)] if isinstance(prompt, str) else prompt or []
        messages += [message_to_wire(message) for message in opening]
        urls = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
        # both are on this machine; a client of its own with certificates would take longer than all else here
        http = httpx.AsyncClient(timeout=None, verify=False, trust_env=False)
        model = AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0, http_client=http)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(http)
            tools, places, servers = await connect_mcp({"mcpServers": urls}, stack)
            offered = {"tools": tools} if tools else {}
            while True:
                answer = await model.chat.completions.create(model=ctx.model, messages=messages, **offered)
                message = answer.choices[0].message
                messages.append(message.model_dump(exclude_none=True))
                for call in message.tool_calls or ():
                    name = call.function.name
                    told = {"role": "tool", "tool_call_id": call.id, "name": name}
                    if tool_interception_url:
                        decision = await gate_tool_call(http, tool_interception_url, secret, call)
                        if decision["action"] == "deny":
                            messages.append(bound_tool_message(decision["message"]))
                            continue
                    if call.id in self.refused:
                        told["content"] = self.refused[call.id]
                    else:
                        told["content"] = await call_mcp(servers, places, name, json.loads(call.function.arguments))
                    messages.append(bound_tool_message(told))
                if not message.tool_calls:
                    return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class Host:
    """One environment, and one episode of it at a time."""

    def __init__(self, environment: str, arguments: dict[str, Any], folder: str, most: int):
        """arguments: the taskset's settings. folder: to import from, or ''. most: tasks of an endless taskset."""
        sys.path[:0] = [folder] if folder else []
        module = types.ModuleType(HARNESS)
        vars(module).update(Loop=Loop, __all__=["Loop"])
        sys.modules[HARNESS] = module
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.episode: asyncio.Future[vf.Episode] | None = None
        self.held = AsyncExitStack()
        self._do(self._open(environment, arguments, most))

    def tasks(self) -> list[dict[str, Any]]:
        """What each task holds."""
        return [task.data.model_dump(mode="json", exclude_unset=True) for task in self.rows]

    def begin(self, index: int, seed: int) -> dict[str, Any]:
        """Begin an episode, and end the one before. What the model is asked first, or how it ended."""
        return self._do(self._begin(index, seed))

    def say(self, message: dict[str, Any], refused: dict[str, str]) -> dict[str, Any]:
        """Answer the model's request. What it is asked next, or how the episode ended."""
        Loop.refused = refused
        return self._do(self._answered(message))

    def stop(self) -> dict[str, Any]:
        """End the episode as a limit on turns does: it is scored as it stands."""
        self.traces[-1].stop("max_turns")
        return self._do(self._answered(None))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def _open(self, environment: str, arguments: dict[str, Any], most: int) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/chat/completions", self._asked)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        client = vf.EvalClientConfig(base_url=url, api_key_var="ETUDE_NONE")
        self.model = vf.ModelContext(model="etude", client=client)

        taskset = {"id": environment, **arguments}
        seats = [*agent_config_fields(vf.resolve_env_config({"taskset": taskset}))]
        if len(seats) != 1:
            raise ValueError(f"{environment!r} has the seats {', '.join(seats)}; only those with one are played")
        seat = {"harness": {"id": HARNESS}, "runtime": {"type": "subprocess"}}
        self.env = vf.load_environment(vf.resolve_env_config({"taskset": taskset, seats[0]: seat}))
        bounded = self.env.taskset.bounded
        self.rows = list(self.env.taskset if bounded else itertools.islice(self.env.taskset, most))
        await self.held.enter_async_context(self.env.serving())

    async def _begin(self, index: int, seed: int) -> dict[str, Any]:
        if self.episode is not None and not self.episode.done():
            self.episode.cancel()
            await asyncio.wait([self.episode])
        random.seed(f"{index} {seed}")  # for environments that draw from it; verifiers has no seed of an episode
        self.asks: asyncio.Queue[tuple[dict[str, Any], asyncio.Future[Any]]] = asyncio.Queue()
        self.known, self.traces = 0, []
        playing = self.env.run_episode(self.rows[index], self.model, on_trace=self.traces.append)
        self.episode = asyncio.ensure_future(playing)
        return await self._next()

    async def _answered(self, message: dict[str, Any] | None) -> dict[str, Any]:
        self.answer.set_result(message)
        return await self._next()

    async def _next(self) -> dict[str, Any]:
        assert self.episode is not None
        asked = asyncio.ensure_future(self.asks.get())
        await asyncio.wait([asked, self.episode], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            return self._ended(self.episode.result())
        body, self.answer = asked.result()
        messages = body["messages"]
        if self.known and (len(messages) < self.known or messages[self.known - 1]["role"] != "assistant"):
            raise RuntimeError("the environment began another conversation in the same episode, which is not played")
        new, self.known = messages[self.known :], len(messages) + 1
        tools = [tool["function"] for tool in body.get("tools", ())]
        return {"messages": new, "tools": tools, "done": False}

    def _ended(self, episode: vf.Episode) -> dict[str, Any]:
        trace = episode.traces[-1] if episode.traces else None
        if errors := [*episode.errors, *(trace.errors if trace else ())]:
            raise RuntimeError("; ".join(f"{error.type}: {error.message}" for error in errors))
        assert trace is not None
        scores = {name: reward.score for name, reward in trace.rewards.items() if reward is not None}
        scores |= {name: value for name, value in trace.metrics.items() if value is not None}
        return {"messages": [], "tools": [], "done": True, "reward": trace.reward, "scores": scores}

    async def _asked(self, request: web.Request) -> web.Response:
        """The model's endpoint: OpenAI's chat completions."""
        answer = self.loop.create_future()
        await self.asks.put((await request.json(), answer))
        message = await answer
        if message is None:
            return web.json_response({"error": {"message": "the episode was cut"}}, status=400)
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        whole = {"id": "etude", "object": "chat.completion", "created": 0, "model": "etude", "choices": [choice]}
        return web.json_response(whole)
