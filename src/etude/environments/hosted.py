"""Worlds that live in worker processes: sessions that ask one, and text games, whose score is paid as it rises."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from etude.core.errors import EnvironmentFault
from etude.environments.base import ToolSession
from etude.protocols import Observation, Step, Task
from etude.tools.process import Crew, Worker
from etude.trajectory import Message


class HostedSession(ToolSession):
    """A session whose world lives in a worker process, hired at the first reset and released by `close`.

    A worker that dies, hangs or grows too large ends the episode with EnvironmentFault; `reset` then hires another.
    """

    worker: Worker | None = None

    def __init__(self, crew: Crew, **limits: Any):
        super().__init__(**limits)
        self.crew = crew

    async def ask(self, method: str, **arguments: Any) -> Any:
        """Call a method of the object in the worker."""
        if self.worker is None:
            raise EnvironmentFault(f"{self.crew.target}, call {method!r}: the session is not begun; reset it")
        return await self.worker.call(method, **arguments)

    async def reset(self, task: Task, seed: int) -> Observation:
        if self.worker is not None and not self.worker.alive:
            await self.close()
        if self.worker is None:
            self.worker = await self.crew.hire()
        return await super().reset(task, seed)

    async def close(self) -> None:
        if self.worker is not None:
            self.crew.release(self.worker)
            self.worker = None


class Told(TypedDict):
    """What a game in a worker answers."""

    text: str
    score: float
    """The whole score so far."""
    over: bool
    """Whether the game is won, lost or closed."""


class GameSession(HostedSession):
    """An episode of a text game in a worker. A step's reward is what the score rose by, so that rewards add up to it.

    The worker's object has `begin`, which gets the task's data, and a method for each tool; they answer with a `Told`.
    """

    score = earned = 0.0
    over = False

    def __init__(self, crew: Crew, tools: Sequence[dict[str, Any]], instructions: str, **limits: Any):
        """tools: their schemas. instructions: the system message."""
        super().__init__(crew, **limits)
        self.offered, self.instructions = list(tools), instructions

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.earned = self.offered, 0.0
        text = self._tell(await self.ask("begin", **task.data))
        return Observation((Message("system", self.instructions), Message("user", text)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        text = self._tell(await self.ask(name, **arguments))
        self.done = self.over
        return text

    def _tell(self, told: Told) -> str:
        self.score, self.over = told["score"], told["over"]
        return told["text"]

    async def step(self, action: Message | np.ndarray) -> Step:
        step = await super().step(action)
        reward = self.score - self.earned
        self.earned += reward  # and not the score, so that the sum of all rewards is the score to the last bit
        return dataclasses.replace(step, reward=reward)

    async def finish(self, answer: str) -> float:
        """An agent that says something instead of acting gives up; it keeps what it has."""
        return 0.0  # `step` gives the reward
