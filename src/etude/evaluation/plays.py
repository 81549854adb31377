"""Episodes without a model: by a script, by doing nothing, by chance; with all that the agent saw, to compare."""

import asyncio
import contextlib
import dataclasses
import hashlib
import importlib.util
import inspect
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from etude.core import recipe as recipes
from etude.core.errors import EtudeError, MissingExtra, PartError, suggest
from etude.evaluation.random_agent import RandomAgent
from etude.protocols import SPLITS, Environment, Observation, Session, Task
from etude.trajectory import Message

TURNS = 16  # most turns of a random agent
SECONDS = 300.0  # most time of one episode
MOST = 10_000  # tasks of a split that are looked at
Actor = Callable[[Sequence[Mapping[str, Any]], Sequence[Message]], Message | None]
"""The tools and the new messages -> what to do; None to stop."""


# -- worlds ----------------------------------------------------------------------------------------------------------


def build(name: str) -> Any:
    """A world by its name as a recipe writes it, or by the place of one's own.

    name: `desk`, `{desk: {difficulty: 3}}`, or `path/to/file.py:NAME`, a world or what makes one when it is called.
    Raises PartError where there is none.
    """
    place, colon, thing = name.rpartition(":")
    if not colon or not place.endswith(".py"):
        return recipes.build("environments", recipes.parse(name))
    file = Path(place).resolve()
    if not file.is_file():
        raise PartError(f"no file {place!r} to take the world {thing!r} from")
    alias = f"own_{file.stem}"  # a file may be called as a library is, and must not stand in for it
    spec = importlib.util.spec_from_file_location(alias, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module  # dataclasses look their module up
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # as for a script, whose neighbours can be imported
    spec.loader.exec_module(module)
    if not hasattr(module, thing):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise PartError(f"{place} has no {thing!r}; {suggest(thing, public)}")
    found = getattr(module, thing)
    return found if hasattr(found, "tasks") and not inspect.isclass(found) else found()


def splits(world: Environment) -> dict[str, Sequence[Task]]:
    """The tasks of those of train, dev and test that the world has. Raises MissingExtra where it lacks its suite."""
    found: dict[str, Sequence[Task]] = {}
    for split in SPLITS:
        try:
            found[split] = world.tasks(split)
        except MissingExtra:
            raise
        except (EtudeError, KeyError, ValueError):  # how a world says that it has no such split
            continue
    return {split: tasks for split, tasks in found.items() if len(tasks)}


def fingerprint(tasks: Iterable[Task]) -> str:
    """A digest of all that tasks hold, the same in every process."""
    digest = hashlib.sha256()
    for task in tasks:
        row = [task.id, task.split, task.data, task.domain, task.difficulty, task.skills, task.provenance]
        digest.update(dumps(row).encode())
    return digest.hexdigest()


class Elsewhere:
    """A world as another process sees it; lives in a worker of `tools.process.Crew`."""

    def __init__(self, world: str):
        self.world = build(world)

    def fingerprints(self) -> dict[str, str]:
        return {split: fingerprint(itertools.islice(tasks, MOST)) for split, tasks in splits(self.world).items()}

    def episodes(self, places: Sequence[tuple[str, int]]) -> list[list[str]]:
        """The records of a random agent in these tasks, each given by its split and its place there."""
        return asyncio.run(self._episodes([self.world.tasks(split)[i] for split, i in places]))

    async def _episodes(self, tasks: Sequence[Task]) -> list[list[str]]:
        return [(await alone(self.world, task, RandomAgent(task.id), turns=TURNS)).record for task in tasks]


# -- playing ---------------------------------------------------------------------------------------------------------


def scripted(messages: Sequence[Message]) -> Actor:
    """Says these messages and stops."""
    rest = iter(messages)
    return lambda tools, new: next(rest, None)


def idle(tools: Sequence[Mapping[str, Any]], new: Sequence[Message]) -> Message:
    """Does nothing: an empty answer."""
    return Message("assistant", "")


@dataclass
class Play:
    """An episode, or the rest of one."""

    task: Task
    seen: list[str] = field(default_factory=list[str])
    """What the agent was shown and did, as JSON: observation and tools, then action and step, turn by turn."""
    actions: list[Message] = field(default_factory=list[Message])
    rewards: list[float] = field(default_factory=list[float])
    seconds: list[float] = field(default_factory=list[float])
    """Of the reset, where it was played from the start, then of each step."""
    done: bool = False
    standing: float | None = None
    """What it would earn if it ended now, where the world says so and the episode is not over."""
    fault: str = ""
    """What was raised, and where."""

    @property
    def record(self) -> list[str]:
        """`seen`, and at its end what the episode would earn."""
        return [*self.seen, dumps(self.standing)]

    @property
    def reward(self) -> float:
        """As the engine counts it: what the steps paid, or else what the world says of the state it is in."""
        return float(sum(self.rewards)) if self.rewards else self.standing or 0.0

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What is raised inside becomes `fault`."""
        try:
            yield
        except Exception as error:
            at = f"turn {len(self.actions)}, {brief(self.actions[-1])}" if self.actions else "reset"
            text = str(error) or (f"no end after {SECONDS:g} s" if isinstance(error, TimeoutError) else "")
            self.fault = f"{at}: {type(error).__name__}: {text}"
            self.seen.append(f"raised {type(error).__name__}")


@contextlib.asynccontextmanager
async def opened(world: Environment) -> AsyncIterator[Session]:
    """A session that is closed again."""
    session = world.open()
    try:
        yield session
    finally:
        await session.close()


async def alone(world: Environment, task: Task, actor: Actor, *, turns: int | None = None) -> Play:
    """One episode in a session of its own."""
    async with opened(world) as session:
        return await play(session, task, actor, turns=turns)


async def play(session: Session, task: Task, actor: Actor, *, turns: int | None = None) -> Play:
    """One episode with seed 0, from its reset on. What the world raises ends it and is in `fault`."""
    made = Play(task)
    with made.told():
        async with asyncio.timeout(SECONDS):
            start = time.perf_counter()
            first = await session.reset(task, 0)
            made.seconds.append(time.perf_counter() - start)
            made.seen += [dumps(first), dumps(session.tools)]
        await _go_on(session, made, actor, turns, first)
    return made


async def go_on(session: Session, task: Task, actor: Actor, *, turns: int | None = None) -> Play:
    """The rest of an episode that is under way; `seen` begins with the next action."""
    made = Play(task)
    with made.told():
        await _go_on(session, made, actor, turns, Observation())
    return made


async def _go_on(session: Session, made: Play, actor: Actor, turns: int | None, shown: Observation) -> None:
    async with asyncio.timeout(SECONDS):
        while not made.done and (turns is None or len(made.actions) < turns):
            action = actor(session.tools, shown.messages)
            if action is None:
                break
            made.actions.append(action)
            start = time.perf_counter()
            step = await session.step(action)
            made.seconds.append(time.perf_counter() - start)
            made.seen += [dumps(action), dumps([step.observation, step.reward, step.done])]
            made.rewards += [] if step.reward is None else [step.reward]
            shown, made.done = step.observation, step.done
        if not made.done:
            made.standing = await standing(session)


async def standing(session: Session) -> float | None:
    """What the session says it would earn now; None where it does not say."""
    judge = getattr(session, "current_reward", None)
    reward = judge() if judge else None
    return await reward if inspect.isawaitable(reward) else reward


# -- comparing -------------------------------------------------------------------------------------------------------


def dumps(value: Any) -> str:
    """JSON of any value, equal where the values are; of an object that JSON cannot hold, its type alone."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(dumps, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return type(value).__name__


def difference(one: Sequence[str], other: Sequence[str]) -> str:
    """Where two lists of `Play.seen` part, in words; '' where they are equal.

    >>> difference(["a", "bcd"], ["a", "bed"])
    "'bcd' against 'bed'"
    """
    for a, b in zip(one, other, strict=False):
        if a != b:
            at = max(0, next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0) - 20)
            return f"{a[at : at + 60]!r} against {b[at : at + 60]!r}"
    return "" if len(one) == len(other) else f"{len(one)} entries against {len(other)}"


def brief(message: Message) -> str:
    """A message in a few words."""
    calls = [f"{call.name}({json.dumps(call.arguments, default=str)})" for call in message.tool_calls]
    text = ", ".join(calls) or repr(message.content)
    return text if len(text) <= 80 else text[:77] + "..."
