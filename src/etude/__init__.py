"""Make LLM agents better by practice, and see what was gained and what was lost.

`run` runs a recipe. `policy`, `world`, `rollout`, `Learner` and the shelves (`credit`, `objectives`, ...) are for a
loop of one's own. Importing etude loads none of them: each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from etude.apps.merge import merge
    from etude.apps.run import Finished
    from etude.core.parts import Shelf
    from etude.environments.functions import tool
    from etude.environments.sources import SourceWorld, State
    from etude.environments.world import World
    from etude.protocols import Agent, Comparer, Policy, Sampling, Scorer, Task
    from etude.training.learner import Learner
    from etude.trajectory import Episode, Message, ToolCall, Trajectory

    Said = Message | ToolCall | str
    __version__: str
    credit: Shelf
    curation: Shelf
    environments: Shelf
    objectives: Shelf
    policies: Shelf
    scoring: Shelf
    weights: Shelf

SHELVES = ("credit", "curation", "environments", "objectives", "policies", "scoring", "weights")
PLACES = {
    "Episode": "etude.trajectory",
    "Learner": "etude.training.learner",
    "Message": "etude.trajectory",
    "Sampling": "etude.protocols",
    "ToolCall": "etude.trajectory",
    "Trajectory": "etude.trajectory",
    "merge": "etude.apps.merge",
    "tool": "etude.environments.functions",
}
"""Name -> the module that holds it."""
__all__ = [
    "Episode",
    "Learner",
    "Message",
    "Sampling",
    "ToolCall",
    "Trajectory",
    "credit",
    "curation",
    "environments",
    "mcp",
    "merge",
    "objectives",
    "openapi",
    "policies",
    "policy",
    "rollout",
    "run",
    "scoring",
    "tool",
    "weights",
    "world",
]
T = TypeVar("T")


def __getattr__(name: str) -> Any:
    if name in SHELVES:
        return importlib.import_module(f"etude.{name}")
    if name in PLACES:
        return getattr(importlib.import_module(PLACES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("etude")
    raise AttributeError(f"etude has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def run(
    recipe: str,
    *,
    out: str | None = None,
    policy: Any = None,
    environment: Any = None,
    agent: Any = None,
    **overrides: Any,
) -> Finished:
    """Run a recipe, or go on with it where an earlier call stopped: see `etude.apps.run.run`.

    recipe: its name, or the path of a YAML file. out: the run's directory.
    policy, environment, agent: a part's name, or an object of one's own in its place.
    overrides: top-level keys of the recipe, such as `seed=1` or `evaluate={"tasks": 20}`.
    """
    from etude.apps import run as runs

    given = {"policy": policy, "environment": environment, "agent": agent}
    return _outside_loop(lambda: runs.run(recipe, out=out, **given, **overrides))


def policy(name: str, **settings: Any) -> Any:
    """A policy that is ready to act: `policy("tiny")`, `policy("smollm2")`, `policy("openai", model="...")`.

    name: a part of the shelf `policies`, a model's short name, a directory, a GGUF file or a Hugging Face id.
    settings: of the part; `etude parts policies/local` lists them.
    Raises PartError for an unknown setting, PolicyError where there is no such model.
    """
    from etude.core import recipe

    if "tiny" in (name, settings.get("model")):
        from etude.synthesis import tiny

        tiny.ensure()
    made = recipe.build("policies", {name: settings})
    if hasattr(made, "generator"):  # a model that runs here samples through etude's decoder
        from etude.rollout.collect import attach

        attach(made)
    return made


@overload
def world(name: str, **settings: Any) -> Any: ...
@overload
def world(
    *,
    tools: Sequence[Callable[..., Any]],
    tasks: str | Path | Sequence[Mapping[str, Any]],
    score: Callable[..., Any],
    setup: Callable[[dict[str, Any]], Any] | None = None,
    solve: Callable[[dict[str, Any]], Sequence[Said]] | None = None,
    name: str = "world",
    **settings: Any,
) -> World: ...
def world(
    name: str | None = None, *, solve: Callable[[dict[str, Any]], Sequence[Said]] | None = None, **settings: Any
) -> Any:
    """A built-in world by its name, or one made of your own tools.

    name: a part of the shelf `environments`, with its settings: `world("desk", difficulty=2)`; or what your own world
        is called in trajectories and reports.
    tools, tasks, score, setup, ...: what `etude.environments.world.World` is made from.
    solve: with tools, a task's row -> what an assistant says that solves it, turn by turn: a ToolCall, a text or a
        Message. Then `collect: {by: expert}` has demonstrations to collect.
    """
    if "tools" not in settings:
        from etude.core import recipe
        from etude.core.errors import PartError

        if name is None:
            raise PartError("which world? give a name, such as 'desk', or tools=, tasks= and score= of your own")
        return recipe.build("environments", {name: settings})
    from etude.environments.world import World

    return _solved(World(**settings, name=name or "world"), solve)


def mcp(
    server: str | Sequence[str],
    *,
    tasks: str | Path | Sequence[Mapping[str, Any]],
    score: Callable[..., Any],
    setup: Callable[[State, dict[str, Any]], Any] | None = None,
    solve: Callable[[dict[str, Any]], Sequence[Said]] | None = None,
    **settings: Any,
) -> SourceWorld:
    """A world made of an MCP server's tools: a command, which each episode starts for itself, or an address.

    tasks, score, solve: as for `world`. setup: `setup(state, row)` prepares `state.folder`, where the command runs.
    The rest is as in `etude.environments.mcp.mcp`.
    """
    from etude.environments.mcp import mcp as make

    return _solved(make(server, tasks=tasks, score=score, setup=setup, **settings), solve)


def openapi(
    description: str | Path | Mapping[str, Any],
    *,
    tasks: str | Path | Sequence[Mapping[str, Any]],
    score: Callable[..., Any],
    setup: Callable[[State, dict[str, Any]], Any] | None = None,
    solve: Callable[[dict[str, Any]], Sequence[Said]] | None = None,
    **settings: Any,
) -> SourceWorld:
    """A world made of an HTTP service's operations, which an OpenAPI 3 file, address or dictionary describes.

    tasks, score, solve: as for `world`. setup: `setup(state, row)` brings the service to the task's beginning.
    The rest is as in `etude.environments.openapi.openapi`.
    """
    from etude.environments.openapi import openapi as make

    return _solved(make(description, tasks=tasks, score=score, setup=setup, **settings), solve)


def _solved(world: Any, solve: Callable[[dict[str, Any]], Sequence[Said]] | None) -> Any:
    if solve is not None:
        world.solve = lambda task, seed: [_said(turn) for turn in solve(task.data)]
    return world


def _said(turn: Said) -> Message:
    from etude.trajectory import Message, ToolCall

    if isinstance(turn, ToolCall):
        return Message("assistant", tool_calls=(turn,))
    return Message("assistant", turn) if isinstance(turn, str) else turn


def rollout(
    policy: Policy,
    tasks: Sequence[Task],
    *,
    agent: Agent | str | Mapping[str, Any] = "native",
    group: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
    max_turns: int = 8,
    scorers: Sequence[Scorer | Comparer] = (),
) -> list[Trajectory]:
    """Play `group` episodes of each task and wait for them; one trajectory per task, in the order of the tasks.

    agent: an agent, or the name of one from the shelf `agents/loops`.
    The rest is as in `etude.rollout.collect.collect`, which is for async code and has more settings.
    """
    import asyncio

    from etude.core import recipe
    from etude.protocols import Sampling
    from etude.rollout.collect import collect

    loop: Any = recipe.build("agents/loops", agent) if isinstance(agent, (str, Mapping)) else agent
    settings = {"group": group, "seed": seed, "max_turns": max_turns, "scorers": scorers}
    return _outside_loop(
        lambda: asyncio.run(collect(policy, tasks, agent=loop, sampling=sampling or Sampling(), **settings))
    )


def _outside_loop(work: Callable[[], T]) -> T:
    """Do what needs an event loop of its own; where one is running, as in a notebook, in a thread beside it."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


class _Rollout(ModuleType):
    """The package `etude.rollout`, which is also the function above: importing it would hide a plain function."""

    __call__ = staticmethod(rollout)


importlib.import_module("etude.rollout").__class__ = _Rollout
