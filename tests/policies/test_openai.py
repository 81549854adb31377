"""Against a real server on loopback that answers by a given script, misbehaviour included."""

import asyncio
import base64
import json
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from etude.agents.loops import native
from etude.core.errors import PolicyError
from etude.objectives import clipped
from etude.policies import openai as part_of_the_shelf
from etude.policies.openai import openai, to_wire
from etude.protocols import Grammar, Sampling
from etude.rollout.collect import collect
from etude.training.learner import Learner
from etude.trajectory import Image, Message, ToolCall, Trajectory

from ..engine_fixtures import Talk, make_tokenizer

PARAMETERS = {"type": "object", "properties": {"of": {"type": "string"}}}
TOOL = {"name": "stock", "description": "Count.", "parameters": PARAMETERS}


def completion(content=None, calls=(), finish="stop", usage=None, **more):
    calls = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in calls]
    message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **more}
    usage = usage or {"prompt_tokens": 10, "completion_tokens": 5}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


class Server(ThreadingHTTPServer):
    """Gives its replies in order, the last one for ever.

    A reply is a JSON value, or (status, headers, text), or seconds of silence.
    """

    daemon_threads = True

    def __init__(self, *replies):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.seen, self.times = list(replies), [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept alive

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.seen.append((self.path, self.headers.get("authorization"), body))
            server.times.append(time.monotonic())
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
        if isinstance(reply, float):
            time.sleep(reply)
            reply = completion("late")
        status, headers, text = reply if isinstance(reply, tuple) else (200, {}, json.dumps(reply))
        with server.lock:
            server.at_once -= 1
        try:
            self.send_response(status)
            for name, value in {"content-length": str(len(text.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if "x-drip" in headers:
                for byte in text.encode():
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.02)
            else:
                self.wfile.write(text.encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had stopped waiting

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(*replies):
        servers.append(Server(*replies))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(sys.modules["etude.policies.openai"], "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


def asked(*messages, tools=()):
    trajectory = Trajectory("t", "task", tools=list(tools))
    leaf = None
    for message in messages or (Message("user", "How many mugs?"),):
        leaf = trajectory.add(message, leaf)
    return trajectory, leaf


async def act(policy, *messages, tools=(), sampling=None):
    trajectory, leaf = asked(*messages, tools=tools)
    below, action = await policy.act(trajectory, leaf, sampling=sampling or Sampling(max_tokens=7), seed=3)
    assert below == leaf
    await policy.close()
    return action


async def test_text_and_the_request_that_asked_for_it(serve):
    server = serve(completion("Three."))
    policy = openai("m", server.url, extra={"top_k": 5, "seed": None})
    action = await act(policy, tools=[TOOL], sampling=Sampling(7, 0.5, 0.9, ("\n",)))
    assert action.message == Message("assistant", "Three.")
    assert not action.truncated
    assert action.problem == ""
    assert action.ids_T is None
    path, authorization, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert authorization == "Bearer sk-secret"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "How many mugs?"}],
        "tools": [{"type": "function", "function": TOOL}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "top_k": 5,
    }


async def test_content_and_two_calls_together_with_the_thought(serve):
    calls = [("a", "stock", '{"of": "mugs"}'), ("b", "stock", "")]
    server = serve(completion("Let me see.", calls, "tool_calls", reasoning_content="two kinds"))
    action = await act(openai("m", server.url))
    assert action.message == Message(
        "assistant",
        "Let me see.",
        (ToolCall("stock", {"of": "mugs"}, "a"), ToolCall("stock", {}, "b")),
        thought="two kinds",
    )


@pytest.mark.parametrize("arguments", ['{"of": "mugs"', '["mugs"]'])
async def test_malformed_arguments_are_a_problem_told_to_the_agent(serve, arguments):
    server = serve(completion("Let me see.", [("a", "stock", '{"of": "cups"}'), ("b", "stock", arguments)]))
    policy = openai("m", server.url)
    action = await act(policy)
    assert action.message.tool_calls == ()
    assert action.message.content.startswith("Let me see.\n")
    assert arguments in action.message.content
    assert arguments in action.problem
    assert "Call stock again with one JSON object" in action.problem
    assert policy.ledger.requests == 1  # the agent's mistake, not the server's: nothing is retried


async def test_cut_at_the_limit(serve):
    assert (await act(openai("m", serve(completion("Thr", finish="length")).url))).truncated


async def test_log_probabilities_where_the_server_gives_them(serve):
    reply = completion("Three.")
    tokens = [{"token": "Three", "logprob": -0.5}, {"token": ".", "logprob": -0.25}]
    reply["choices"][0]["logprobs"] = {"content": tokens}
    server = serve(reply)
    action = await act(openai("m", server.url, logprobs=True))
    assert server.seen[0][2]["logprobs"] is True
    assert action.logprob_T.dtype == np.float32
    assert action.logprob_T.tolist() == [-0.5, -0.25]


async def test_a_rate_limit_is_waited_out_for_as_long_as_it_says(serve):
    server = serve((429, {"retry-after": "0.3"}, "slow down"), completion("ok"))
    policy = openai("m", server.url)
    assert (await act(policy)).message.content == "ok"
    assert server.times[1] - server.times[0] >= 0.3  # never sooner; how much later is not this test's business
    assert (policy.ledger.requests, policy.ledger.retries) == (2, 1)


async def test_retry_after_may_be_a_date(serve):
    server = serve((503, {"retry-after": formatdate(time.time() + 10_000, usegmt=True)}, "maintenance"))
    with pytest.raises(PolicyError, match=r"gave up after 1 attempts: 503 maintenance; it asks to wait \d+ s"):
        async with asyncio.timeout(5):
            await act(openai("m", server.url))


@pytest.mark.parametrize(
    "bad",
    [
        (500, {}, "boom"),
        (502, {"retry-after": "soon"}, "bad gateway"),
        (200, {}, "<html>proxy"),
        (200, {}, '{"choices": [{"mess'),
        (200, {}, '{"error": {"message": "overloaded"}}'),
    ],
)
async def test_what_may_pass_is_tried_again(serve, bad):
    policy = openai("m", serve(bad, bad, completion("fine")).url)
    assert (await act(policy)).message.content == "fine"
    assert (policy.ledger.requests, policy.ledger.retries) == (3, 2)
    assert policy.ledger.prompt_tokens == 10


async def test_a_silent_server_is_asked_again(serve):
    policy = openai("m", serve(2.0, completion("awake")).url, timeout=0.2)
    assert (await act(policy)).message.content == "awake"
    assert policy.ledger.retries == 1
    assert policy.ledger.seconds >= 0.2


async def test_a_dripping_answer_runs_out_of_time_too(serve):
    drip = (200, {"x-drip": "yes"}, json.dumps(completion("so slow")))  # each byte comes well within the timeout
    policy = openai("m", serve(drip, completion("swift")).url, timeout=0.3)
    assert (await act(policy)).message.content == "swift"


async def test_retries_end_and_quote_the_server(serve):
    server = serve((500, {}, "out of memory"))
    with pytest.raises(PolicyError, match=r"gave up after 3 attempts: 500 out of memory"):
        await act(openai("m", server.url, max_retries=2))
    assert len(server.seen) == 3


async def test_nobody_listens(serve):
    server = serve(completion())
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(PolicyError, match=r"gave up after 2 attempts: connection failed.*\n.*server is up"):
        await act(openai("m", url, max_retries=1))


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, "`extra`"), (401, "OPENAI_API_KEY is set, but was not accepted"), (404, "`base_url`")],
)
async def test_other_refusals_are_final_say_what_to_do_and_hide_the_key(serve, status, advice):
    server = serve((status, {}, '{"error": "you sent sk-secret and I refuse"}'))
    with pytest.raises(PolicyError) as refused:
        await act(openai("m", server.url))
    assert len(server.seen) == 1
    assert "you sent *** and I refuse" in str(refused.value)
    assert advice in str(refused.value)
    assert "sk-secret" not in str(refused.value) + repr(refused.value.__context__)


async def test_without_a_key_none_is_sent_and_the_refusal_names_the_variable(serve, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    server = serve(completion("open"), (401, {}, "who are you?"))
    policy = openai("m", server.url, api_key_env="MY_KEY")
    assert (await act(policy)).message.content == "open"
    assert server.seen[0][1] is None
    with pytest.raises(PolicyError, match="MY_KEY is not set"):
        await act(policy)
    assert "sk-secret" not in repr(openai("m"))


async def test_the_ledger_adds_up(serve):
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 600}}
    policy = openai("m", serve(completion("a", usage=usage)).url, price_in=2.0, price_out=10.0)
    await act(policy)
    await act(policy)
    ledger = policy.ledger
    assert (ledger.prompt_tokens, ledger.completion_tokens, ledger.cached_tokens) == (2000, 200, 1200)
    assert ledger.usd == pytest.approx(2 * (1000 * 2.0 + 100 * 10.0) / 1e6)


async def test_no_more_requests_at_once_than_allowed(serve):
    server = serve(0.05)
    policy = openai("m", server.url, concurrency=3)
    trajectory, leaf = asked()
    await asyncio.gather(*(policy.act(trajectory, leaf, sampling=Sampling(), seed=i) for i in range(9)))
    await policy.close()
    assert len(server.seen) == 9
    assert 1 < server.most_at_once <= 3
    assert sorted(body["seed"] for _, _, body in server.seen) == list(range(9))


def test_one_policy_serves_one_event_loop_after_another(serve):
    policy = openai("m", serve(completion("ok")).url)
    trajectory, leaf = asked()
    for _ in range(2):
        asyncio.run(policy.act(trajectory, leaf, sampling=Sampling(), seed=0))
    assert policy.ledger.requests == 2


def test_a_dialogue_on_the_wire():
    two = (ToolCall("stock", {"of": "mugs"}), ToolCall("stock", {"of": "cups"}))
    picture = Image(b"png", "image/png")
    wire = to_wire(
        [
            Message("user", "Count these.", images=(picture,)),
            Message("assistant", "", two, thought="not sent"),
            Message("tool", "3"),
            Message("tool", "4"),
            Message("assistant", "So:", (ToolCall("stock", {}, "given"),)),
            Message("tool", "7", tool_call_id="given"),
        ]
    )
    url = "data:image/png;base64," + base64.b64encode(b"png").decode()
    text, image = wire[0]["content"]
    assert text == {"type": "text", "text": "Count these."}
    assert image == {"type": "image_url", "image_url": {"url": url}}
    assert wire[1]["content"] is None
    assert "not sent" not in str(wire)
    ids = [call["id"] for call in wire[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [json.loads(c["function"]["arguments"]) for c in wire[1]["tool_calls"]] == [{"of": "mugs"}, {"of": "cups"}]
    assert [wire[2]["tool_call_id"], wire[3]["tool_call_id"]] == ids
    assert wire[4]["content"] == "So:"
    assert wire[4]["tool_calls"][0]["id"] == wire[5]["tool_call_id"] == "given"


def test_a_tool_message_that_answers_no_call_goes_out_as_the_user_s():
    wire = to_wire(
        [
            Message("tool", "trimmed away was the call", tool_call_id="gone"),
            Message("assistant", "", (ToolCall("stock", {}, "a"),)),
            Message("tool", "3", tool_call_id="a"),
            Message("tool", "again", tool_call_id="a"),
            Message("assistant", "", (ToolCall("stock", {}),)),
            Message("user", "never mind"),
            Message("tool", "too late"),
            Message("assistant", "Three."),
            Message("tool", "error: write a call"),
        ]
    )
    assert [row["role"] for row in wire] == [
        *("user", "assistant", "tool", "user", "assistant", "user", "user", "assistant", "user")
    ]
    assert [row["tool_call_id"] for row in wire if "tool_call_id" in row] == ["a"]
    assert wire[-1] == {"role": "user", "content": "error: write a call"}


def test_the_newer_name_of_the_limit_goes_to_openai_itself(monkeypatch):
    bodies = []

    async def keep(self, body):
        bodies.append(body)

    monkeypatch.setattr(openai, "_ask", keep)
    trajectory, leaf = asked()
    asyncio.run(openai("m").act(trajectory, leaf, sampling=Sampling(max_tokens=9), seed=0))
    assert bodies[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in bodies[0]


async def test_there_must_be_something_to_answer():
    with pytest.raises(PolicyError, match="no message to answer"):
        await openai("m").act(Trajectory("t", "task"), None, sampling=Sampling(), seed=0)


def test_the_shelf_gives_the_part():
    assert part_of_the_shelf is openai


# -- token ids -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tokenizer(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


def text_completion(ids, logprobs, shape="vllm", finish="stop"):
    """One answer of `/completions`, as vLLM, llama.cpp, or a server that gives no ids writes it."""
    choice = {"text": "whatever", "finish_reason": finish, "logprobs": {"token_logprobs": logprobs}}
    if shape == "vllm":
        choice["token_ids"] = ids
    if shape == "llama.cpp":
        choice["logprobs"] = {"content": [{"id": i, "logprob": p} for i, p in zip(ids, logprobs, strict=True)]}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": len(ids)}}


@pytest.mark.parametrize("shape", ["vllm", "llama.cpp"])
async def test_with_a_tokenizer_ids_go_out_and_come_back(serve, tokenizer, shape):
    renderer = openai("m", tokenizer=tokenizer).renderer
    said = [*renderer.encode('<tool_call>{"name": "stock", "arguments": {"of": "x"}}</tool_call>').tolist(), 2]
    server = serve(text_completion(said, [-0.5] * len(said), shape))
    policy = openai("m", server.url, tokenizer=tokenizer, context=200)
    trajectory, leaf = asked(tools=[TOOL])
    leaf, action = await policy.act(trajectory, leaf, sampling=Sampling(500), seed=3)
    assert action.ids_T.tolist() == said
    assert action.ids_T.dtype == np.int32
    assert action.logprob_T.tolist() == [-0.5] * len(said)
    assert action.message.tool_calls[0].arguments == {"of": "x"}
    assert not action.truncated
    path, _, body = server.seen[0]
    assert path == "/v1/completions"
    prompt = np.concatenate([trajectory.ids_P(leaf), action.prompt_ids_T]).tolist()
    assert renderer.decode(prompt).endswith("How many mugs?<|im_end|>\n<|im_start|>assistant\n")
    assert body == {
        "model": "m",
        "prompt": prompt,
        "max_tokens": 200 - len(prompt),
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 3,
        "logprobs": 1,
        "return_token_ids": True,
        "stop_token_ids": [2],
    }
    assert policy.ledger.completion_tokens == len(said)
    await policy.close()


@pytest.mark.parametrize("cut", [{"temperature": 0.5}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 0.0}])
async def test_log_probabilities_that_servers_do_not_agree_on_are_left_out(serve, tokenizer, cut):
    server = serve(text_completion([5, 6], [-1.0, -2.0], finish="length"))
    policy = openai("m", server.url, tokenizer=tokenizer)
    action = await act(policy, sampling=Sampling(**cut))
    assert action.ids_T.tolist() == [5, 6]
    assert action.logprob_T is None
    assert action.truncated


async def test_a_server_without_ids_is_told_to_be_one_that_cannot_be_trained_on(serve, tokenizer):
    server = serve(text_completion([5, 6], [-1.0, -2.0], "text alone"))
    with pytest.raises(PolicyError, match=r"gave 0 token ids .* cannot be trained on .* leave out `tokenizer`"):
        await openai("m", server.url, tokenizer=tokenizer).act(*asked(), sampling=Sampling(), seed=0)
    assert len(server.seen) == 1


async def test_what_the_server_chose_by_bias_or_grammar_cannot_be_told(tokenizer):
    policy = openai("m", tokenizer=tokenizer)
    for sampling in (Sampling(logit_bias={1: 2.0}), Sampling(grammar=Grammar("regex", "a"))):
        with pytest.raises(PolicyError, match="no grammar and no logit_bias"):
            await policy.act(*asked(), sampling=sampling, seed=0)


async def test_in_messages_a_schema_a_bias_and_min_p_go_along(serve):
    server = serve(completion("{}"))
    sampling = Sampling(min_p=0.1, logit_bias={5: -1.0}, grammar=Grammar("json", '{"type": "object"}'))
    await act(openai("m", server.url), sampling=sampling)
    body = server.seen[0][2]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["min_p"], body["logit_bias"]) == (0.1, {"5": -1.0})
    with pytest.raises(PolicyError, match="no grammar of kind 'regex' on a server"):
        await act(openai("m", server.url), sampling=Sampling(grammar=Grammar("regex", "a")))


async def test_what_a_server_sampled_is_trained_by_a_local_model_of_the_same_tokenizer(serve, tokenizer, load_policy):
    server = serve(text_completion([5, 6, 2], [-1.0, -2.0, -3.0]))
    remote = openai("m", server.url, tokenizer=tokenizer)
    (trajectory,) = await collect(remote, Talk().tasks("train", 1), agent=native())
    await remote.close()
    assert trajectory.episodes[0].failure is None
    trajectory.weigh([1.0])
    figures = Learner(load_policy(), clipped(), lr=1e-3).step([trajectory])
    assert figures["tokens"] == 3
    assert figures["ratio"] != pytest.approx(1.0), "the server's log-probabilities are not this model's"


async def test_a_seed_fits_the_signed_integers_that_servers_take(serve):
    server = serve(completion("x"))
    policy = openai("m", server.url)
    await policy.act(*asked(), sampling=Sampling(), seed=2**63 + 5)
    await policy.close()
    assert server.seen[0][2]["seed"] == 5
