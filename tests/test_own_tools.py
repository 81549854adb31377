"""The page "Bring your own tools", followed to the letter: its three worlds are made, played and trained on."""

import importlib.util
import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import etude
from etude.policies.scripted import scripted
from etude.trajectory import Message

from .test_docs import blocks

WORLDS = {"lamps.py": "order", "branches.py": "git_create_branch", "shop.py": "order"}
"""A file of the page -> the tool that its solution calls."""


class Shop(BaseHTTPRequestHandler):
    """The service that the page's shop.yaml describes."""

    orders: list[list[dict]] = []  # noqa: RUF012
    """Of each account."""

    def log_message(self, *args: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/accounts":
            self.orders.append([])
            self.answer(len(self.orders) - 1)
        else:
            self.orders[int(self.headers["X-Account"])].append(json.loads(body))
            self.answer("ordered")

    def do_GET(self) -> None:
        self.answer(self.orders[int(self.headers["X-Account"])])

    def answer(self, body: object) -> None:
        if self.headers["Authorization"] != "Bearer t0ken":
            self.send_error(401)
            return
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def world(request, shop, tmp_path, monkeypatch):
    """The world of one of the page's files, which stand beside each other as the page has them."""
    if request.param == "branches.py" and not all(map(importlib.util.find_spec, ("mcp", "mcp_server_git"))):
        pytest.skip("mcp-server-git is not installed")
    for _, title, body in blocks("docs/own-environment.md"):
        if title:
            (tmp_path / title).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_URL", shop)
    monkeypatch.setenv("SHOP_TOKEN", "t0ken")
    monkeypatch.setenv("ETUDE_QUIET", "1")
    made = runpy.run_path(request.param)["world"]
    made.solved_by = WORLDS[request.param]
    return made


every_world = pytest.mark.parametrize("world", WORLDS, indirect=True)


@every_world
def test_solutions_reach_the_maximum_and_doing_nothing_earns_nothing(world):
    low, high = world.reward_range
    task = world.tasks("test")[0]
    for says, reward in ((world.solve(task, 0), high), ([Message("assistant", "Done.")], low)):
        (played,) = etude.rollout(scripted(says), [task])
        assert played.episodes[0].failure is None
        assert played.episodes[0].reward == reward
    assert world.solve(task, 0)[0].tool_calls[0].name == world.solved_by


@every_world
def test_a_model_is_tuned_on_it_for_two_steps(world, tiny_policy, tmp_path):
    tiny_policy.save(tmp_path / "tiny")
    stages = [
        {"collect": {"by": "expert", "episodes": 4}},
        {"collect": {"by": "policy", "episodes": 1, "max_tokens": 8, "max_turns": 2, "keep": False}},
        {"train": {"batch": 2}},
    ]
    run = etude.run(
        str(Path("practise.yaml").resolve()),
        policy=str(tmp_path / "tiny"),
        environment=world,
        stages=stages,
        evaluate={"tasks": 0},
    )
    log = (run.path / "log.txt").read_text()
    assert "collect: 4 episodes by expert, 4 solved" in log
    metrics = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics if row["stage"] == "02-train"] == [1, 2]
    assert (run.path / "model" / "model.safetensors").exists()
