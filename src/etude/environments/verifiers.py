"""verifiers: an environment of Prime Intellect's library, played by its own rollout in an interpreter of its own.

https://github.com/PrimeIntellect-ai/verifiers, the interface `verifiers.v1` of 0.4. The library pins another version of
`mcp` than etude wants, so it is installed apart and `python` names its interpreter. What the environment asks its model
is shown to the agent, with the tools that it lists; what the agent says is the model's answer. So tools run where the
environment runs them, a user's replies come from the environment's own `run`, and the reward is that of its trace: its
weighted rewards added up. These and its metrics are kept as scores. What fails in the environment is its own fault.

A task is one of the taskset's, which fall into the splits by a hash (80/10/10). verifiers has no seed for an episode:
the seed is set in Python's `random`, and a fork is made by replay, which is exact where nothing else is left to chance.
Nothing says what a solution would be, so there is no expert.

Departures: the harness is a loop over the environment's tools, as verifiers' `null`, and not its default `bash`, which
gives a model the machine's shell; what needs a container is refused. Environments with one seat alone are played, and
one conversation an episode. A call that does not fit its tool's schema is answered in words and not run.
"""

import base64
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from etude.core.errors import EnvironmentFault, MissingExtra, PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, hashed_split
from etude.environments.functions import check_call, coerce_call
from etude.environments.hosted import HostedSession
from etude.environments.sources import checked
from etude.protocols import SPLITS, Observation, Step, Task
from etude.tools import process
from etude.trajectory import Image, Message, ToolCall

VERSION = "0.4.0"
INSTALL = f"python -m venv .venv-verifiers && .venv-verifiers/bin/pip install verifiers=={VERSION}"
HOST = Path(process.__file__).with_name("verifiers_host.py")
LOCAL = "127.0.0.1,localhost"


@part
@dataclass(eq=False)
class verifiers(Tasks):
    """One environment of verifiers. Raises PartError where `python` is no interpreter."""

    environment: str
    """The package that exports the taskset, by the name under which it is imported."""
    python: str
    """The interpreter in which verifiers and the environment are installed, such as `.venv-verifiers/bin/python`."""
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the taskset, as `--env.taskset.*` of verifiers."""
    folder: str = ""
    """Where to import the environment from, where it is not installed."""
    size: int = 2000
    """Tasks of an endless taskset."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    at_once: int = 8
    """A process each, of about 300 MB."""
    max_steps: int | None = None
    """Messages after which the episode is scored as it stands."""
    call_seconds: float = 60.0
    """What the environment may take to go on after a message."""

    def __post_init__(self) -> None:
        self.reward_range = (float(self.reward_range[0]), float(self.reward_range[1]))
        python = shutil.which(self.python)
        if python is None:
            raise PartError(f"environments/verifiers: no interpreter at python {self.python!r}; run:  {INSTALL}")
        self.name = f"verifiers/{self.environment}"
        folder = str(Path(self.folder).resolve()) if self.folder else ""
        settings = {"environment": self.environment, "arguments": self.arguments, "folder": folder, "most": self.size}
        around = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))  # for tool servers, too
        env = {"PYTHONPATH": around, "NO_PROXY": LOCAL, "no_proxy": LOCAL}
        self.crew = process.Crew(
            f"{HOST}:Host",
            settings=settings,
            python=str(Path(python).absolute()),  # and not where a link leads, out of its environment
            size=self.at_once,
            seconds=180,  # tool servers of a task start at `begin`
            env=env,
        )

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What each task holds. Raises MissingExtra where the interpreter has no verifiers."""
        try:
            return self.crew.ask("tasks")
        except EnvironmentFault as error:
            if "No module named 'verifiers'" in str(error):
                raise MissingExtra(f"{self.python} has no verifiers; run:  {INSTALL}") from error
            raise

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """The tasks of each split, by their places in the taskset."""
        found: dict[str, list[int]] = {split: [] for split in SPLITS}
        for i, row in enumerate(self.rows):
            own = {key: value for key, value in row.items() if key != "idx"}
            found[hashed_split(json.dumps(own, sort_keys=True))].append(i)
        return found

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in SPLITS:
            raise PartError(f"{self.name} has no split {split!r}; {suggest(split, SPLITS)}")
        places = self.places[split]
        return LazyTasks(lambda n: self._task(split, places[n]), len(places))

    def _task(self, split: str, i: int) -> Task:
        row = self.rows[i]
        provenance = f"verifiers taskset {self.environment}"
        return Task(f"{self.name}/{i}", self, split, row, self.name, provenance=provenance)

    def open(self) -> "VerifiersSession":
        return VerifiersSession(self)


class VerifiersSession(HostedSession):
    """One episode of verifiers, in a worker."""

    def __init__(self, world: verifiers):
        super().__init__(world.crew, max_steps=world.max_steps, max_chars=20_000, call_seconds=world.call_seconds)
        self.cut = False
        self.calls: dict[str, str] = {}

    async def begin(self, task: Task, seed: int) -> Observation:
        self.cut, self.tools = False, []
        told = await self.ask("begin", index=task.data["idx"], seed=seed)
        if told["done"]:
            raise EnvironmentFault(f"task {task.id}: the environment ended without asking its model")
        for tool in told["tools"]:
            described = {"name": tool["name"], "description": tool.get("description") or tool["name"]}
            self.tools.append({**described, "parameters": checked(tool["name"], tool["parameters"])})
        return self._seen(told)

    async def step(self, action: Message | np.ndarray) -> Step:
        """Answer the environment's model. Reward is None until it has ended."""
        if self.task is None or self.done:
            raise EnvironmentFault(f"step on a session that is {'over' if self.task else 'not begun'}; reset it")
        if not isinstance(action, Message):
            raise EnvironmentFault(f"task {self.task.id}: this world takes messages, not {type(action).__name__}")
        if self.cut:  # it was ended to see what it would pay
            await self._again()
        self.actions.append(action)
        refused = {call.id: f"error: {wrong}" for call in action.tool_calls if (wrong := check_call(self.tools, call))}
        told = await self._go_on("say", message=self._written(action, refused), refused=refused)
        step = Step(self._seen(told), told["done"], told.get("reward"), {"scores": told.get("scores", {})})
        if not step.done and self.max_steps is not None and len(self.actions) >= self.max_steps:
            told = await self._go_on("stop")
            step = Step(step.observation, True, told["reward"], {"limit": "max_steps", "scores": told["scores"]})
        self.done = step.done
        return step

    async def current_reward(self) -> float:
        """What the environment pays for the episode as it stands. Only its end tells: a later step plays it again."""
        if self.cut:
            await self._again()
        self.cut = True
        return (await self._go_on("stop"))["reward"]

    async def _again(self) -> None:
        assert self.task is not None
        actions = self.actions
        await self.reset(self.task, self.seed)
        for action in actions:
            await self.step(action)

    async def _go_on(self, method: str, **arguments: Any) -> dict[str, Any]:
        assert self.worker is not None
        return await self.worker.call(method, call_seconds=self.call_seconds, **arguments)

    def _written(self, action: Message, refused: Mapping[str, str]) -> dict[str, Any]:
        """A message as OpenAI's interface has it."""
        calls = [call if call.id in refused else coerce_call(self.tools, call) for call in action.tool_calls]
        self.calls = {call.id: call.name for call in calls}
        made = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
            for c in calls
        ]
        return {"role": "assistant", "content": action.content} | ({"tool_calls": made} if made else {})

    def _seen(self, told: Mapping[str, Any]) -> Observation:
        return Observation(tuple(map(self._message, told["messages"])))

    def _message(self, wire: Mapping[str, Any]) -> Message:
        content = wire.get("content") or ""
        pieces: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "\n".join(piece["text"] for piece in pieces if piece["type"] == "text")
        images = tuple(_image(piece["image_url"]["url"]) for piece in pieces if piece["type"] == "image_url")
        calls = tuple(
            ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"])
            for call in wire.get("tool_calls") or ()
        )
        answers = wire.get("tool_call_id", "")
        if answers and len(text) > self.max_chars:
            text = f"{text[: self.max_chars]}... (cut: {self.max_chars} of {len(text)} characters)"
        return Message(wire["role"], text, calls, answers, self.calls.get(answers, ""), images=images)


def _image(url: str) -> Image:
    head, comma, data = url.partition(";base64,")
    if not comma or not head.startswith("data:"):
        raise EnvironmentFault(f"the environment shows an image at {url[:60]!r}; only `data:` addresses are read")
    return Image(base64.b64decode(data), head.removeprefix("data:"))
