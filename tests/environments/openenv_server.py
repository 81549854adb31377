"""Servers made with openenv-core: `python openenv_server.py guess|tools PORT`."""

import random
import sys

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field


class Guess(Action):
    """Guess a number."""

    number: int = Field(description="from 1 to 9", le=9)


class Hint(Observation):
    hint: str


class Guessing(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, low=1, **rest):
        self.secret, self.count = random.Random(seed).randint(low, 9), 0
        return Hint(hint=f"a number from {low} to 9")

    def step(self, action, timeout_s=None, **rest):
        self.count += 1
        if action.number == 0:
            raise RuntimeError("the server broke")
        right = action.number == self.secret
        hint = "right" if right else "higher" if self.secret > action.number else "lower"
        return Hint(hint=hint, done=right, reward=1.0 if right else -0.125)

    @property
    def state(self):
        return State(step_count=self.count)


class Shelf(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        server = FastMCP("shelf")
        self.items = {}

        @server.tool
        def put(item: str, number: int) -> str:
            """Put a number of an item on the shelf."""
            if number < 1:
                raise ValueError(f"cannot put {number}")
            self.items[item] = self.items.get(item, 0) + number
            return f"{self.items[item]} of {item}"

        super().__init__(server)

    def reset(self, seed=None, episode_id=None, **rest):
        self.items.clear()
        return Observation()

    def _step_impl(self, action, timeout_s=None, **rest):
        raise ValueError(action)

    @property
    def state(self):
        return State(step_count=0)


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    parts = (Guessing, Guess, Hint) if kind == "guess" else (Shelf, CallToolAction, CallToolObservation)
    uvicorn.run(create_app(*parts, max_concurrent_envs=4), host="127.0.0.1", port=port, log_level="warning")
