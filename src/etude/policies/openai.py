"""A model behind any server that speaks OpenAI's chat completions: OpenAI, vLLM, SGLang, llama.cpp, OpenRouter, …

Every attempt is entered in `policy.ledger`. Such a policy gives text and calls, not token ids: it can play, teach and
be measured, but what it samples cannot be trained on token by token. With `tokenizer` it can: prompts then go as ids to
`/completions`, and the server must say which ids it sampled, as vLLM (`return_token_ids`) and llama.cpp do.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import email.utils
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np

from etude.core.errors import PolicyError
from etude.core.parts import part
from etude.policies.base import act
from etude.protocols import Action, Sampling
from etude.rendering import Renderer
from etude.trajectory import Message, ToolCall, Trajectory

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds of back-off
PATIENCE = 600.0  # a server that asks for a longer pause is given up


@dataclass
class Ledger:
    """What a policy has cost so far."""

    requests: int = 0
    """Sent, retries included."""
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the server had cached."""
    seconds: float = 0.0
    """Spent in requests, added over concurrent ones; pauses between retries are left out."""
    usd: float = 0.0
    """At the given prices; cached tokens count in full, so an upper bound where the server gives a discount on them."""


class _Retry(Exception):
    """The attempt failed in a way that may pass."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait
        """Seconds that the server asked for."""


@part
@dataclass
class openai:
    """One remote model.

    Rate limits, server errors, timeouts, lost connections and unreadable answers are retried with exponential back-off
    and jitter, and no sooner than `Retry-After` says; other refusals are not.
    """

    model: str
    """The server's name for it."""
    base_url: str = "https://api.openai.com/v1"
    """Where `/chat/completions` is."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; where it is unset, none is sent, as local servers need none."""
    max_retries: int = 5
    """Further attempts after the first."""
    timeout: float = 60.0
    """Seconds for one attempt."""
    concurrency: int = 16
    """Requests under way at once."""
    price_in: float = 0.0
    """USD per million prompt tokens."""
    price_out: float = 0.0
    """USD per million completion tokens."""
    logprobs: bool = False
    """Ask for log-probabilities. Servers differ on whether they are taken before or after the temperature."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More fields for the request's body; None takes a field out, as `{seed: null}` for a server that refuses seeds."""
    tokenizer: str = ""
    """Directory or Hugging Face id of the server's tokenizer: render here, and exchange token ids."""
    context: int = 4096
    """With `tokenizer`: most tokens of one conversation, as the server takes them."""

    version = 0

    def __post_init__(self) -> None:
        self.name = f"openai/{self.model}"
        self.ledger = Ledger()
        self._loop: asyncio.AbstractEventLoop | None = None
        if self.tokenizer:
            self.renderer = Renderer.load(self.tokenizer)

    async def act(
        self, trajectory: Trajectory, leaf: int | None, *, sampling: Sampling, seed: int
    ) -> tuple[int, Action]:
        """Ask the model to answer the dialogue that ends at `leaf`, with the trajectory's tools on offer.

        The action has no `ids_T`; `logprob_T` (float32, one per token of the server's) only with `logprobs`. A call
        whose arguments are no JSON object makes the action's `problem`, its message then holding the raw text alone.

        With `tokenizer` see `submit` for what the action has.

        Raises PolicyError when the server refuses, or when retries are used up; and for a grammar other than a JSON
        schema, which no server is sure to keep to.
        """
        if self.tokenizer:
            return await act(self, self.submit, trajectory, leaf, sampling=sampling, seed=seed)
        if leaf is None:
            raise PolicyError(f"trajectory {trajectory.id}: no message to answer; the world must speak first")
        body: dict[str, Any] = {
            "model": self.model,
            "messages": to_wire(trajectory.dialogue(leaf)),
            # OpenAI's own newer models refuse the older name, other servers mostly know that one alone.
            "max_completion_tokens" if "api.openai.com" in self.base_url else "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed % 2**63,  # servers take signed integers
        }
        if sampling.grammar and sampling.grammar.kind != "json":
            raise PolicyError(f"{self.name}: no grammar of kind {sampling.grammar.kind!r} on a server; only 'json'")
        if sampling.grammar:
            schema = {"name": "answer", "strict": True, "schema": json.loads(sampling.grammar.text)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        body |= _rare(sampling)
        if trajectory.tools:
            body["tools"] = [{"type": "function", "function": tool} for tool in trajectory.tools]
        if self.logprobs:
            body["logprobs"] = True
        return leaf, await self._ask(body)

    async def submit(self, prompt: np.ndarray, sampling: Sampling, seed: int) -> Action:
        """Continue int32 ids: `ids_T`, and `logprob_T` where all servers agree on it: uncut, at temperature 1.

        Raises PolicyError where the server does not say which ids it sampled, and for a bias or a grammar: it does not
        say either what these chose.
        """
        if sampling.grammar or sampling.logit_bias:
            raise PolicyError(f"{self.name}: with `tokenizer`, no grammar and no logit_bias; see the docs of `submit`")
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt.tolist(),
            "max_tokens": min(sampling.max_tokens, self.context - len(prompt)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed % 2**63,  # servers take signed integers
            "logprobs": 1,
            "return_token_ids": True,
            "stop_token_ids": sorted(self.renderer.stop_ids),
        }
        got = await self._ask(body | _rare(sampling), "completions", from_completion)
        uncut = sampling.temperature == 1 and sampling.top_p == 1 and not sampling.min_p
        return got if uncut else replace(got, logprob_T=None)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        if self._loop is asyncio.get_running_loop():
            await self._client.aclose()
            self._loop = None

    async def _ask(
        self,
        body: dict[str, Any],
        path: str = "chat/completions",
        read: Callable[[dict[str, Any]], Action] | None = None,
    ) -> Action:
        """read: a choice of the server's answer as an action; `from_wire` unless told."""
        body = {key: value for key, value in (body | self.extra).items() if value is not None}
        self._connect()
        attempt = 0
        async with self._gate:  # held while waiting, so that a server that is too busy gets fewer requests
            while True:
                try:
                    return await self._attempt(path, body, read or from_wire)
                except _Retry as failed:
                    if attempt == self.max_retries or failed.wait > PATIENCE:
                        asked = f"; it asks to wait {failed.wait:.0f} s" if failed.wait else ""
                        raise PolicyError(
                            f"{self.name} at {self.base_url}: gave up after {attempt + 1} attempts: {failed}{asked}\n"
                            "check that the server is up, or lower `concurrency`, raise `timeout` or `max_retries`"
                        ) from failed
                    backoff = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0)
                    await asyncio.sleep(max(backoff, failed.wait))
                attempt += 1
                self.ledger.retries += 1

    def _connect(self) -> None:
        """Connections and locks belong to one event loop; a new loop gets new ones."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # The gate limits connections, and `_attempt` the time of a whole one; httpx would limit that of each read.
            self._client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))
            self._gate = asyncio.Semaphore(self.concurrency)
            self._loop = loop

    async def _attempt(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], Action]) -> Action:
        key = os.environ.get(self.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        began = time.monotonic()
        self.ledger.requests += 1
        url = f"{self.base_url.rstrip('/')}/{path}"
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self._client.post(url, json=body, headers=headers)
        except TimeoutError as error:
            raise _Retry(f"no answer within {self.timeout:g} s") from error
        except httpx.TransportError as error:
            raise _Retry(f"connection failed: {error}") from error
        finally:
            self.ledger.seconds += time.monotonic() - began
        said = (reply.text.replace(key, "***") if key else reply.text)[:500]
        if reply.status_code == 429 or reply.status_code >= 500:
            raise _Retry(f"{reply.status_code} {said}", _retry_after(reply.headers.get("retry-after", "")))
        if reply.status_code != 200:
            advice = self._advice(reply.status_code)
            raise PolicyError(f"{self.name} at {self.base_url}: {reply.status_code} {said}\n{advice}")
        try:
            answer = reply.json()
            action = read(answer["choices"][0])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Retry(f"200, but not a completion ({error!r}): {said}") from error
        self._enter(answer.get("usage") or {})
        return action

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            state = "is set, but was not accepted" if os.environ.get(self.api_key_env) else "is not set"
            return f"environment variable {self.api_key_env} {state}; `api_key_env` names another"
        if status == 404:
            return "check `base_url` (it usually ends in /v1) and `model`"
        return "the server refuses the request as it is; `extra` adds or takes out fields of its body"

    def _enter(self, usage: dict[str, Any]) -> None:
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        self.ledger.prompt_tokens += prompt
        self.ledger.completion_tokens += completion
        self.ledger.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        self.ledger.usd += (prompt * self.price_in + completion * self.price_out) / 1e6


def to_wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the chat-completions format writes them.

    Calls that came without an id get one, and tool messages without one answer them in order. A tool message that
    answers no call of the assistant message before it becomes a user message: servers would refuse it.
    """
    wire: list[dict[str, Any]] = []
    open_ids: list[str] = []
    for m in messages:
        row: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.role != "tool":
            open_ids = []
        if m.tool_calls:
            open_ids = [call.id or f"call_{len(wire)}_{i}" for i, call in enumerate(m.tool_calls)]
            row["content"] = m.content or None
            row["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
                for id, c in zip(open_ids, m.tool_calls, strict=True)
            ]
        if m.role == "tool":
            answered = m.tool_call_id or next(iter(open_ids), "")
            if answered in open_ids:
                open_ids.remove(answered)
                row["tool_call_id"] = answered
            else:
                row["role"] = "user"
        if m.images:
            urls = [f"data:{image.media};base64,{base64.b64encode(image.data).decode()}" for image in m.images]
            images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            row["content"] = [{"type": "text", "text": m.content}, *images] if m.content else images
        wire.append(row)
    return wire


def from_wire(choice: dict[str, Any]) -> Action:
    """One choice of a chat completion as an action."""
    said = choice["message"]
    content, raw_calls = said.get("content") or "", said.get("tool_calls") or []
    calls, problems = [], []
    for raw in raw_calls:
        name, text = raw["function"]["name"], raw["function"]["arguments"]
        try:
            arguments = json.loads(text or "{}")
            if not isinstance(arguments, dict):
                raise ValueError(f"it is a {type(arguments).__name__}")
            calls.append(ToolCall(name, arguments, raw.get("id") or ""))
        except ValueError as error:
            problems.append(
                f"The arguments of your call to {name} are not a JSON object ({error}): {text[:200]}\n"
                f"Call {name} again with one JSON object that maps each parameter to its value."
            )
    if problems:  # half of a turn is not run: all of it is given back as text
        functions = [raw["function"] for raw in raw_calls]
        texts = [f'<tool_call>{{"name": "{f["name"]}", "arguments": {f["arguments"]}}}</tool_call>' for f in functions]
        content, calls = "\n".join([content, *texts] if content else texts), []
    logprobs = (choice.get("logprobs") or {}).get("content")
    thought = said.get("reasoning_content") or said.get("reasoning") or ""
    return Action(
        Message("assistant", content, tuple(calls), thought=thought),
        logprob_T=np.array([token["logprob"] for token in logprobs], np.float32) if logprobs else None,
        truncated=choice.get("finish_reason") == "length",
        problem="\n".join(problems),
    )


def from_completion(choice: dict[str, Any]) -> Action:
    """One choice of a completion as an action of ids and log-probabilities; raises PolicyError where it has no ids."""
    given = choice.get("logprobs") or {}
    each = given.get("content") or []  # one entry for each token, as llama.cpp writes it
    ids = choice.get("token_ids") or [token["id"] for token in each if "id" in token]
    logprobs = given.get("token_logprobs") or [token["logprob"] for token in each]
    if not ids or len(ids) != len(logprobs):
        raise PolicyError(
            f"the server gave {len(ids)} token ids and {len(logprobs)} log-probabilities for {choice.get('text')!r}, so"
            " that it cannot be trained on token by token; take a server that gives both, such as vLLM, or leave out"
            " `tokenizer` to talk in messages"
        )
    return Action(
        Message("assistant", choice.get("text") or ""),
        ids_T=np.array(ids, np.int32),
        logprob_T=np.array(logprobs, np.float32),
        truncated=choice.get("finish_reason") == "length",
    )


def _rare(sampling: Sampling) -> dict[str, Any]:
    """Fields that go into a body only where they say something, as not every server knows them."""
    bias = {str(id): bias for id, bias in sampling.logit_bias}
    rare = {"stop": list(sampling.stop), "min_p": sampling.min_p, "logit_bias": bias}
    return {name: value for name, value in rare.items() if value}


def _retry_after(value: str) -> float:
    """Seconds to wait by a `Retry-After` header, which holds seconds or a date; 0 where it says nothing."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())
