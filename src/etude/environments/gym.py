"""Any Gymnasium environment, by its id: actions as a tool for models of words, arrays for other policies.

Towers et al. 2024, "Gymnasium: A Standard Interface for Reinforcement Learning Environments", arXiv:2407.17032; MIT
licence, as are the descriptions of its own environments, which are shown to the agent.

An action is a call of `act`, whose schema follows the action space; a policy that is not made of words gives an array
instead and gets the observation as one. Rewards are the environment's own, step by step, and an episode's reward is
their sum. How an episode begins and what luck it has follow from the task, so that all episodes of a group meet the
same; the seed of `reset` changes nothing. Forks copy the environment where Python can and replay it otherwise.

Where steps cost something, an agent that says nothing would earn more than one that plays: set `forfeit` below what
playing can earn.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Step, Task
from etude.trajectory import Message, ToolCall

INSTALL = "pip install 'etude[gymnasium]'"
COLOURS = ("gray", "red", "green", "yellow", "blue", "magenta", "cyan", "white", "crimson")  # gymnasium.utils.colorize
FIRST_SEED = {"train": 0, "dev": 10**6, "test": 2 * 10**6}
MANY = 64  # numbers; more are not written out


@part
@dataclass(eq=False)
class gym(Tasks):
    """One environment of Gymnasium's registry; task n of a split is the environment reset with its n-th seed."""

    id: str
    """As `gymnasium.make` takes it, such as `FrozenLake-v1`, or `package:Name-v0` to import its package first."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """The environment's own, such as `{is_slippery: false}`."""
    instructions: str = ""
    """The system message; by default the environment's own description."""
    describe: Callable[[Any, Any], str] | None = None
    """`describe(env, observation)`: the text that the agent sees. By default the environment's drawing in characters,
    where it has one, and the observation's numbers."""
    expert: Callable[[Any, Any], Any] | None = None
    """`expert(env, observation)`: an action. By default value iteration, where the environment shows its transitions
    (`env.unwrapped.P`), as FrozenLake, Taxi and CliffWalking do."""
    max_steps: int | None = None
    """Messages after which the episode is cut; the environment may have a limit of its own."""
    forfeit: float = 0.0
    """Reward of the last step for an agent that stops before the environment is done."""
    reward_range: tuple[float, float] = (-math.inf, math.inf)
    """Of a whole episode."""
    size: int = 2000
    """Tasks in the split `train`; `dev` and `test` have a tenth."""
    optimal = False

    def __post_init__(self) -> None:
        self.reward_range = (float(self.reward_range[0]), float(self.reward_range[1]))  # a recipe gives a list
        self.name = f"gym/{self.id}" + "".join(f",{key}={value}" for key, value in sorted(self.settings.items()))
        self.make().close()

    def make(self) -> Any:
        """A fresh environment, which draws itself in characters where it can. Raises PartError where there is none."""
        try:
            import gymnasium  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise missing_extra("gymnasium", "gymnasium") from error
        try:
            env = gymnasium.make(self.id, disable_env_checker=True, **self.settings)
            if "ansi" in env.metadata.get("render_modes", ()) and "render_mode" not in self.settings:
                env = gymnasium.make(self.id, disable_env_checker=True, render_mode="ansi", **self.settings)
        except (gymnasium.error.Error, TypeError, ImportError) as error:
            raise PartError(f"environments/gym: {self.id!r} with {self.settings}: {error}") from error
        return env

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in FIRST_SEED:
            raise PartError(f"{self.name} has no split {split!r}; {suggest(split, FIRST_SEED)}")
        return LazyTasks(lambda i: self._make(split, i), self.size if split == "train" else self.size // 10)

    def _make(self, split: str, i: int) -> Task:
        data = {"seed": FIRST_SEED[split] + i}
        return Task(f"{self.name}/{split}/{i}", self, split, data, self.id, provenance="gymnasium")

    def open(self) -> GymSession:
        return GymSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """What the expert does, until the environment or `max_steps` ends it.

        Raises EnvironmentFault where there is none.
        """
        env, acts = self.make(), list[Message]()
        observation, _ = env.reset(seed=task.data["seed"])
        expert, done = self.expert or self._planned, False
        while not done and (self.max_steps is None or len(acts) < self.max_steps):
            action = expert(env, observation)
            acts.append(act(action, f"call_{len(acts) + 1}"))
            observation, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
        env.close()
        return acts

    def _planned(self, env: Any, observation: Any) -> int:
        return int(self._best_S[observation])

    @cached_property
    def _best_S(self) -> np.ndarray:
        """The best action in each state, by value iteration; the discount makes shorter ways better."""
        table = getattr(self.make().unwrapped, "P", None)
        if table is None:
            raise EnvironmentFault(f"{self.name} shows no transitions to plan with; give it an expert=")
        S, A, discount = len(table), len(table[0]), 0.999
        next_SAS, reward_SA = np.zeros((S, A, S)), np.zeros((S, A))
        for s, actions in table.items():
            for a, outcomes in actions.items():
                for chance, to, reward, over in outcomes:
                    reward_SA[s, a] += chance * reward
                    next_SAS[s, a, to] += chance * (not over)
        value_S, before_S = np.zeros(S), np.full(S, np.inf)
        while np.abs(value_S - before_S).max() > 1e-9:
            before_S = value_S
            value_S = (reward_SA + discount * next_SAS @ value_S).max(1)
        return (reward_SA + discount * next_SAS @ value_S).argmax(1)


def act(action: Any, id: str = "call_1") -> Message:
    """A message that does this action of the environment's action space."""
    return Message("assistant", tool_calls=(ToolCall("act", {"action": plain(action)}, id),))


# -- spaces ----------------------------------------------------------------------------------------------------------


def _spaces() -> Any:
    from gymnasium import spaces  # pyright: ignore[reportMissingImports]

    return spaces


def json_schema(space: Any) -> dict[str, Any]:
    """A Gymnasium space as JSON schema. Raises EnvironmentFault for one without a fixed shape, such as `Graph`."""
    spaces = _spaces()
    if isinstance(space, spaces.Discrete):
        return {"type": "integer", "minimum": int(space.start), "maximum": int(space.start + space.n - 1)}
    if isinstance(space, spaces.Box):
        low, high = float(np.min(space.low)), float(np.max(space.high))
        bounds = {k: v for k, v in (("minimum", low), ("maximum", high)) if math.isfinite(v)}
        whole = np.issubdtype(space.dtype, np.integer)
        return _array(space.shape, {"type": "integer" if whole else "number", **bounds})
    if isinstance(space, spaces.MultiDiscrete):
        low, high = int(np.min(space.start)), int(np.max(space.start + space.nvec - 1))
        return _array(space.shape, {"type": "integer", "minimum": low, "maximum": high})
    if isinstance(space, spaces.MultiBinary):
        return _array(space.shape, {"type": "integer", "minimum": 0, "maximum": 1})
    if isinstance(space, spaces.Text):
        return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length}
    if isinstance(space, spaces.Tuple):
        items = [json_schema(one) for one in space.spaces]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(space, spaces.Dict):
        fields = {name: json_schema(one) for name, one in space.spaces.items()}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    raise EnvironmentFault(f"no JSON schema for an action space {space}; wrap the environment in one with another")


def _array(shape: tuple[int, ...], item: dict[str, Any]) -> dict[str, Any]:
    for length in reversed(shape):
        item = {"type": "array", "items": item, "minItems": length, "maxItems": length}
    return item


def read(space: Any, value: Any) -> Any:
    """A JSON value as an element of the space; whether it is inside is still to be asked."""
    spaces = _spaces()
    if isinstance(space, spaces.Dict):
        return {name: read(one, value[name]) for name, one in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(read(one, item) for one, item in zip(space.spaces, value, strict=True))
    if isinstance(space, spaces.Discrete):
        return int(value)
    return value if isinstance(space, spaces.Text) else np.asarray(value, space.dtype)


def of_array(space: Any, array: np.ndarray) -> Any:
    """The action that a policy of arrays means; numbers beyond the bounds of a Box, as a Gaussian draws, are cut."""
    spaces = _spaces()
    if isinstance(space, spaces.Discrete) and array.size == 1:
        return int(array.item())
    if isinstance(space, spaces.Box) and array.size == math.prod(space.shape):
        return np.clip(array.reshape(space.shape), space.low, space.high).astype(space.dtype)
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)) and array.size == math.prod(space.shape):
        return array.reshape(space.shape).astype(space.dtype)
    raise EnvironmentFault(f"an array of shape {array.shape} is no action of {space}")


def plain(value: Any) -> Any:
    """An element of a space as a JSON value; exact, so that a call repeats it."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (tuple, list)) else value


def words(value: Any) -> str:
    """An observation's numbers as text, to four digits; a large array's shape alone.

    >>> words((20, {"speed": np.array([0.123456, -2.0])}))
    '[20, {"speed": [0.1235, -2.0]}]'
    """
    if isinstance(value, np.ndarray) and value.size > MANY:
        return f"an array of shape {value.shape}"

    def short(one: Any) -> Any:
        if isinstance(one, dict):
            return {name: short(item) for name, item in one.items()}
        if isinstance(one, list):
            return [short(item) for item in one]
        return float(f"{one:.4g}") if isinstance(one, float) else one

    return json.dumps(short(plain(value)))


def drawing(text: str) -> str:
    """A drawing without control characters: what was in colour is `<colour text>`.

    >>> drawing(chr(27) + "[41mS" + chr(27) + "[0mFFF")
    '<red S>FFF'
    """

    def named(match: re.Match[str]) -> str:
        return f"<{COLOURS[int(match[1]) % 10]} {match[2]}>"

    return re.sub(r"\x1b\[(\d+)(?:;\d+)*m(.*?)\x1b\[0m", named, text).strip("\n")


def manual(env: Any) -> str:
    """What the environment says of itself to those who play, without the notes for those who program."""
    text = inspect.cleandoc(type(env.unwrapped).__doc__ or "")
    told = re.split(r"\n\s*#+ *(?:Information|Arguments|References|Version|Vectorized)", text)[0].strip()
    note = "In what is drawn, <red S> is an S in red." if env.render_mode == "ansi" else ""
    return "\n\n".join(filter(None, [told, note, "Play by calling act; the episode ends when you no longer call it."]))


# -- an episode ------------------------------------------------------------------------------------------------------


class GymSession(ToolSession):
    """One episode. The reward of a step is what its actions earned."""

    env: Any = None

    def __init__(self, world: gym):
        super().__init__(max_steps=world.max_steps)
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.env = self.env or self.world.make()
        observation, _ = self.env.reset(seed=task.data["seed"])
        parameters = {"action": json_schema(self.env.action_space)}
        parameters = {"type": "object", "properties": parameters, "required": ["action"]}
        self.tools = [{"name": "act", "description": "take an action", "parameters": parameters}]
        self.paid, self.truncated = 0.0, False
        text = self._see(observation)
        system = self.world.instructions or manual(self.env)
        return Observation((Message("system", system), Message("user", text)), self.array)

    def _see(self, observation: Any) -> str:
        space, spaces = self.env.observation_space, _spaces()
        self.array = observation if isinstance(space, spaces.Box) else spaces.utils.flatten(space, observation)
        if self.world.describe:
            return self.world.describe(self.env, observation)
        drawn = [drawing(self.env.render())] if self.env.render_mode == "ansi" else []
        return "\n".join([*drawn, f"observation: {words(observation)}"])

    async def step(self, action: Message | np.ndarray) -> Step:
        """As ToolSession's, but every step has a reward, and `info` says where the environment's own limit cut it."""
        self.paid = 0.0
        if isinstance(action, np.ndarray) and not self.done:
            action = act(of_array(self.env.action_space, action))  # a message, so that a replay repeats it
        step = await super().step(action)
        info = {**step.info, **({"truncated": True} if self.truncated else {})}
        shown = replace(step.observation, array=self.array)
        return replace(step, observation=shown, reward=step.reward if step.done else self.paid, info=info)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        action = read(self.env.action_space, arguments["action"])
        if not self.env.action_space.contains(action):
            raise ToolError(f"{arguments['action']!r} is not in {self.env.action_space}")
        observation, reward, terminated, self.truncated, _ = self.env.step(action)
        self.paid += float(reward)
        self.done = bool(terminated or self.truncated)
        return self._see(observation)

    async def finish(self, answer: str) -> float:
        return self.paid if self.actions[-1].tool_calls else self.world.forfeit

    def current_reward(self) -> float:
        """Of an episode that was cut before its first step."""
        return self.world.forfeit

    def save(self) -> Any:
        try:
            return copy.deepcopy(self.env), copy.copy(self.array)
        except Exception:  # whatever a simulator in C raises
            return None

    def load(self, state: Any) -> None:
        self.env, self.array = copy.deepcopy(state[0]), state[1]

    async def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
