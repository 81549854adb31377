"""What worlds share: tools from typed functions, checked calls, sessions that run them, tasks that are drawn.

`tool` turns a typed Python function into a JSON-schema description. `ToolSession` runs the calls of a message, answers
a bad call in words, and forks by replay. `Speaker` is somebody else in the world, such as a user. `Tasks` draws tasks
for practice. `World` puts the three together for functions of your own.
"""

import asyncio
import copy
import dataclasses
import enum
import hashlib
import inspect
import json
import math
import random
import re
import types
import typing
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Union, overload

import numpy as np
from jsonschema import Draft202012Validator

from etude.core.errors import EnvironmentFault, EtudeError, FormatError, PartError, ScoreError, suggest
from etude.protocols import Action, Observation, Policy, Sampling, Step, Task
from etude.tools.process import Crew, Worker
from etude.trajectory import Message, ToolCall, Trajectory

F = TypeVar("F", bound=Callable[..., Any])
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
PLAIN[type(None)] = "null"
HIDDEN = ("self", "cls", "state")
TAUGHT = "+"
"""What a split's name ends with where results are followed by what they teach; see `environments/lessons`."""


class ToolError(EtudeError):
    """The agent's mistake, such as an unknown id: its text is what the agent reads as the call's result."""


# -- functions -> schemas --------------------------------------------------------------------------------------------


def tool(function: F) -> F:
    """Make a typed function, sync or async, a tool: `.schema` is `{name, description, parameters}`; it stays callable.

    The first paragraph of the docstring is the description. An argument is described by a line `name: text`, or in the
    Google or NumPy style. A first parameter called `self` or `state` is not shown to the agent.

    Raises EnvironmentFault for an argument without a type, or with one that JSON cannot hold.

    >>> @tool
    ... def stock(item: str, floor: int = 0) -> int:
    ...     '''How many of an item are on the shelf.
    ...
    ...     item: the item's name
    ...     '''
    ...     return 3
    >>> stock.schema["parameters"]["properties"]
    {'item': {'type': 'string', 'description': "the item's name"}, 'floor': {'type': 'integer', 'default': 0}}
    >>> stock.schema["parameters"]["required"]
    ['item']
    """
    parameters = _visible(function)
    hints = _hints(function)
    description, notes = _docstring(function, list(parameters))
    properties = {}
    for name, parameter in parameters.items():
        place = f"tool {function.__name__!r}, argument {name!r}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise EnvironmentFault(f"{place}: a tool is called by name; declare each argument as `name: type`")
        if name not in hints:
            raise EnvironmentFault(f"{place} has no type; write for example `{name}: str`")
        properties[name] = json_type(hints[name], place)
        if name in notes:
            properties[name]["description"] = notes[name]
        if parameter.default not in (parameter.empty, None):
            properties[name]["default"] = _plain(parameter.default)
    owner: Any = getattr(function, "__func__", function)  # a bound method keeps its attributes on its function
    owner.schema = {
        "name": function.__name__,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": [name for name, parameter in parameters.items() if parameter.default is parameter.empty],
        },
    }
    return function


def json_type(hint: Any, place: str) -> dict[str, Any]:
    """The JSON schema of a Python type; `place` names it in the EnvironmentFault for a type that JSON cannot hold.

    >>> json_type(list[Literal["s", "m"]] | None, "")
    {'anyOf': [{'type': 'array', 'items': {'enum': ['s', 'm']}}, {'type': 'null'}]}
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in (tuple, set):
        return {"type": "array"}
    if isinstance(hint, type) and hint in PLAIN:
        return {"type": PLAIN[hint]}
    if origin is Literal:
        return {"enum": list(args)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if origin in (Union, types.UnionType):
        options = [json_type(arg, place) for arg in args]
        if all(set(option) == {"type"} for option in options):
            return {"type": [option["type"] for option in options]}
        return {"anyOf": options}
    if origin in (list, set) or (origin is tuple and args[1:] == (...,)):
        return {"type": "array", "items": json_type(args[0], place)}
    if origin is dict and args[0] is str:
        return {"type": "object", "additionalProperties": json_type(args[1], place)}
    if dataclasses.is_dataclass(hint):
        fields = [f for f in dataclasses.fields(hint) if f.init]
        hints = typing.get_type_hints(hint)
        return {
            "type": "object",
            "properties": {f.name: json_type(hints[f.name], f"{place}.{f.name}") for f in fields},
            "required": [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING],
            "additionalProperties": False,
        }
    raise EnvironmentFault(
        f"{place} has type {hint!r}, which JSON cannot hold; use str, int, float, bool, Literal, Enum, list[...], "
        "dict[str, ...], a dataclass, or a union of these"
    )


def _visible(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters), "")
    if first in HIDDEN:
        del parameters[first]
    return parameters


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise EnvironmentFault(
            f"tool {function.__name__!r}: {error}; a type written as text must be defined at the module's top level"
        ) from error


def _docstring(function: Callable[..., Any], arguments: list[str]) -> tuple[str, dict[str, str]]:
    """The first paragraph, and what is said of each argument."""
    lines = (inspect.getdoc(function) or "").splitlines()
    numpy_style = re.search(r"^\s*Parameters\n\s*---", "\n".join(lines), re.MULTILINE)
    heading = re.compile(rf"(\s*)(?::param )?({'|'.join(map(re.escape, arguments)) or '$^'})(?: \(.*?\))?\s*:\s*(.*)")
    notes: dict[str, str] = {}
    for i, line in enumerate(lines):
        match = heading.fullmatch(line)
        if match is None:
            continue
        indent, name, text = match.groups()
        below = [] if numpy_style else [text]  # NumPy writes the type on the heading's line and the words below
        for following in lines[i + 1 :]:
            if not following.strip() or len(following) - len(following.lstrip()) <= len(indent):
                break
            below.append(following.strip())
        notes.setdefault(name, " ".join(filter(None, below)))
    first = []
    for line in lines:
        if not line.strip() or heading.fullmatch(line):
            break
        first.append(line.strip())
    return " ".join(first), {name: note for name, note in notes.items() if note}


def _plain(value: Any) -> Any:
    """What json.dumps cannot write by itself."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (set, tuple)):
        return list(value)
    return value if isinstance(value, (str, int, float, list, dict)) or value is None else str(value)


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), default=_plain)


def _typed(hint: Any, value: Any) -> Any:
    """A checked JSON value as the Python value that the function's type asks for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for arg in args:
            if Draft202012Validator(json_type(arg, "")).is_valid(value):
                return _typed(arg, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(**{name: _typed(hints[name], item) for name, item in value.items()})
    if hint in (tuple, set):
        return hint(value)
    if origin in (list, set, tuple):
        return origin(_typed(args[0], item) for item in value)
    if origin is dict:
        return {key: _typed(args[1], item) for key, item in value.items()}
    return float(value) if hint is float else value


# -- calls -----------------------------------------------------------------------------------------------------------


def check_call(tools: Sequence[Mapping[str, Any]], call: ToolCall) -> str:
    """Why a call cannot be run, in words that say how to mend it; '' where it can, once `coerce_call` has read it.

    >>> check_call([{"name": "stock", "parameters": {"properties": {}}}], ToolCall("stok", {}))
    "no tool 'stok'; did you mean 'stock'? There are: stock"
    """
    schemas = {schema["name"]: schema["parameters"] for schema in tools}
    if call.name not in schemas:
        return f"no tool {call.name!r}; {suggest(str(call.name), schemas)}"
    if not isinstance(call.arguments, dict):
        return f"{call.name}: arguments are {_show(call.arguments)}; expected an object of arguments by name"
    schema = schemas[call.name]
    allowed = schema["properties"]
    closed = not schema.get("additionalProperties", False)  # a schema that does not say takes no others
    for name in call.arguments:
        if closed and name not in allowed:
            return f"{call.name} takes no argument {name!r}; {suggest(str(name), allowed)}"
    absent = [name for name in schema.get("required", ()) if name not in call.arguments]
    if absent:
        return f"{call.name} needs {', '.join(map(repr, absent))}; its arguments are: {', '.join(allowed)}"
    try:
        json.dumps(call.arguments, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair; files and processes take none
        half = error.object[error.start : error.end]
        return f"{call.name}: the arguments hold {half!r}, half of a character; write whole ones"
    arguments = coerce_call(tools, call).arguments
    for error in Draft202012Validator(schema).iter_errors(arguments):
        place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in error.absolute_path).lstrip(".")
        if error.validator == "enum":
            wanted = suggest(str(error.instance), map(str, error.validator_value))
        elif error.validator == "type":
            kinds = error.validator_value
            wanted = f"expected {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
        else:
            return f"{call.name}: argument {place!r}: {error.message}"
        return f"{call.name}: argument {place!r} is {_show(error.instance)}; {wanted}"
    return ""


def coerce_call(tools: Sequence[Mapping[str, Any]], call: ToolCall) -> ToolCall:
    """The call with arguments read as their schema's types where nothing is lost by it: "3" as 3, 417 as "417".

    >>> schema = {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}
    >>> coerce_call([schema], ToolCall("f", {"n": "3"})).arguments
    {'n': 3}
    """
    properties = next(schema["parameters"]["properties"] for schema in tools if schema["name"] == call.name)
    arguments = {name: _coerce(properties.get(name, {}), value) for name, value in call.arguments.items()}
    return dataclasses.replace(call, arguments=arguments)


def _coerce(schema: Mapping[str, Any], value: Any) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):  # a union: as it is where it fits, else the first kind that it can be read as
        readings = [value] + [_coerce({**schema, "type": one}, value) for one in kind]
        return next((r for r in readings if Draft202012Validator({"type": kind}).is_valid(r)), value)
    if isinstance(value, str) and kind in ("integer", "number", "boolean", "array", "object"):
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            return value
        value = read if Draft202012Validator({"type": kind}).is_valid(read) else value
    if isinstance(value, float) and kind in ("integer", "number") and not math.isfinite(value):
        return str(value)  # not JSON; left as text, so that the check refuses it
    if isinstance(value, float) and kind == "integer" and value.is_integer():
        return int(value)
    if kind == "string" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if kind == "array" and isinstance(value, list):
        return [_coerce(schema.get("items", {}), item) for item in value]
    if kind == "object" and isinstance(value, dict):
        return {name: _coerce(schema.get("properties", {}).get(name, {}), item) for name, item in value.items()}
    return value


def _show(value: Any) -> str:
    kind = "boolean" if isinstance(value, bool) else PLAIN.get(type(value), type(value).__name__)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"


# -- others in the world ---------------------------------------------------------------------------------------------


class Speaker:
    """A policy that speaks inside a world, such as a simulated user, in a dialogue of its own.

    What it says is context to the agent, and no part of what is trained. The same seed, system message and messages
    give the same answers as far as the policy does; in a fork, what it said before is said again and not drawn anew. A
    world lists its policies in `speakers`, so that `rollout` gives a local one its decoder.
    """

    def __init__(
        self,
        policy: Policy,
        system: str,
        *,
        task: str = "",
        tools: Sequence[dict[str, Any]] = (),
        sampling: Sampling = Sampling(max_tokens=512, temperature=0.0),
        seed: int = 0,
        said: Sequence[Action] = (),
    ):
        """system: who it is, and what it wants. task: the task's id. tools: that it may call; the world runs them.

        said: its first answers, known from the session that this one is a fork of.
        """
        self.policy, self.sampling, self.seed = policy, sampling, seed
        self.known, self.said = list(said), []
        self.dialogue = Trajectory(f"{task}/speaker", task, tools=list(tools))
        self.leaf = self.dialogue.add(Message("system", system), None)

    async def answer(self, *messages: Message) -> Action:
        """What it says to these messages; what the agent said has role `user` here."""
        for message in messages:
            self.leaf = self.dialogue.add(message, self.leaf)
        turn = len(self.said)
        if turn < len(self.known):
            action = self.known[turn]
        else:
            seed = int(np.random.SeedSequence([self.seed, turn]).generate_state(1, np.uint64)[0])
            self.leaf, action = await self.policy.act(self.dialogue, self.leaf, sampling=self.sampling, seed=seed)
        given = [ids for ids in (action.prompt_ids_T, action.ids_T) if ids is not None]
        ids_T = np.concatenate(given) if given else None
        self.leaf = self.dialogue.add(action.message, self.leaf, ids_T=ids_T, version=action.version)
        self.said.append(action)
        return action


# -- sessions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment: how it began and what was done, and the world's own copy where it can make one."""

    task: Task
    seed: int
    actions: tuple[Message, ...]
    done: bool
    state: Any = None
    said: tuple[Action, ...] = ()
    """What the session's speaker said, which a replay says again."""


class ToolSession:
    """One episode in a world made of tools. A subclass gives `begin`, `call` and `finish`.

    A message's calls are run one after the other; a message without calls is the final answer, unless `reply` has
    something to say to it. Where either ends the episode, it sets `done`, and the world is judged as it stands. A fork
    is made by replay, which is exact for any world that the task, the seed and the actions determine; a subclass that
    can copy its state gives `save` and `load` instead.
    """

    def __init__(self, *, max_steps: int | None = None, max_chars: int = 4000, call_seconds: float = 30.0):
        """max_steps: messages after which the episode is judged as it stands; None for no limit.
        max_chars: length at which a tool's result is cut.
        call_seconds: time that one call may take; a sync tool is measured, an async one is also interrupted.
        """
        self.max_steps, self.max_chars, self.call_seconds = max_steps, max_chars, call_seconds
        self.tools: list[dict[str, Any]] = []
        self.task: Task | None = None
        self.seed = 0
        self.actions: list[Message] = []
        self.done = True
        self.speaker: Speaker | None = None
        """Somebody else in the world, made by `begin`, which gives it `said`."""
        self.said: tuple[Action, ...] = ()

    async def begin(self, task: Task, seed: int) -> Observation:
        """Set the world up and `self.tools`; what the agent is shown first."""
        raise NotImplementedError

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The result of a checked call. ToolError is the agent's mistake, any other exception the tool's.

        One that ends the episode sets `self.done`.
        """
        raise NotImplementedError

    async def reply(self, said: str) -> Sequence[Message] | None:
        """What is said to the agent after a message without calls; None where that was its final answer."""
        return None

    async def finish(self, answer: str) -> float:
        """The episode's reward. '' for an agent that never answered."""
        raise NotImplementedError

    def lesson(self, name: str, arguments: dict[str, Any], result: str) -> str:
        """What a result, such as a refusal, teaches of the world's rules; '' for nothing. It must change nothing.

        It says which precondition failed and which tool meets it, or which rule an argument broke; never the answer.
        """
        return ""

    def save(self) -> Any:
        """A copy of the world's state; None where it can only be replayed."""
        return None

    def load(self, state: Any) -> None:
        """Take over what `save` gave, without sharing it."""

    async def reset(self, task: Task, seed: int) -> Observation:
        self.task, self.seed, self.actions, self.done = task, seed, [], False
        return await self.begin(task, seed)

    async def step(self, action: Message | np.ndarray) -> Step:
        """Run the message's calls, or judge its content as the answer. Reward is None until done.

        Raises EnvironmentFault where a tool broke or took too long, or the session is not under way.
        """
        if self.task is None or self.done:
            raise EnvironmentFault(f"step on a session that is {'over' if self.task else 'not begun'}; reset it")
        if not isinstance(action, Message):
            raise EnvironmentFault(f"task {self.task.id}: this world takes messages, not {type(action).__name__}")
        self.actions.append(action)
        if action.tool_calls:
            results = tuple([await self._answer(call) for call in action.tool_calls])
        elif (reply := await self.reply(action.content)) is not None:
            results = tuple(reply)
        else:
            self.done = True
            return Step(Observation(), done=True, reward=await self.finish(action.content))
        if self.done:
            return Step(Observation(results), done=True, reward=await self.finish(""))
        if self.max_steps is not None and len(self.actions) >= self.max_steps:
            self.done = True
            return Step(Observation(results), done=True, reward=await self.finish(""), info={"limit": "max_steps"})
        return Step(Observation(results))

    async def _answer(self, call: ToolCall) -> Message:
        problem = "the episode is over; this call was not run" if self.done else check_call(self.tools, call)
        text = f"error: {problem}" if problem else await self._result(coerce_call(self.tools, call))
        if len(text) > self.max_chars:
            text = f"{text[: self.max_chars]}... (cut: {self.max_chars} of {len(text)} characters)"
        return Message("tool", text, tool_call_id=call.id, name=call.name)

    async def _result(self, call: ToolCall) -> str:
        """A call's result, with its lesson in a task that has them."""
        text = await self._run(call)
        taught = self.task is not None and self.task.split.endswith(TAUGHT)
        lesson = self.lesson(call.name, call.arguments, text) if taught else ""
        return f"{text}; {lesson}" if lesson else text

    async def _run(self, call: ToolCall) -> str:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            result = await asyncio.wait_for(self.call(call.name, call.arguments), self.call_seconds)
            text = result if isinstance(result, str) else _json(result)
        except ToolError as error:
            return f"error: {error}"
        except Exception as error:
            if clock() - begun < self.call_seconds:
                raise EnvironmentFault(f"tool {call.name!r} failed: {type(error).__name__}: {error}") from error
            text = ""
        if clock() - begun >= self.call_seconds:
            raise EnvironmentFault(
                f"tool {call.name!r} took longer than {self.call_seconds:g} s; make it faster or raise call_seconds"
            )
        return text

    async def snapshot(self) -> Snapshot:
        if self.task is None:
            raise EnvironmentFault("snapshot of a session that is not begun; call reset first")
        said = tuple(self.speaker.said) if self.speaker else ()
        return Snapshot(self.task, self.seed, tuple(self.actions), self.done, self.save(), said)

    async def restore(self, snapshot: Snapshot) -> None:
        self.said = snapshot.said
        try:
            await self.reset(snapshot.task, snapshot.seed)
        finally:
            self.said = ()
        if snapshot.state is None:
            for action in snapshot.actions:
                await self.step(action)
        else:
            self.load(snapshot.state)
            self.actions, self.done = list(snapshot.actions), snapshot.done

    async def close(self) -> None:
        """Nothing is held open."""


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


def acts(commands: Sequence[str]) -> list[Message]:
    """Messages that call `act` with these commands, one each."""
    return [
        Message("assistant", "", (ToolCall("act", {"command": command}, f"call_{n}"),))
        for n, command in enumerate(commands, 1)
    ]


# -- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LazyTasks(Sequence[Task]):
    """Tasks that are made when they are looked at: `make(i)` for i in 0 .. length - 1."""

    make: Callable[[int], Task]
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        places = range(self.length)[index]
        return self.make(places) if isinstance(places, int) else [self.make(i) for i in places]

    def __iter__(self) -> Iterator[Task]:
        return map(self.make, range(self.length))


class Tasks:
    """Draws tasks of a split; what an environment with `tasks(split)` adds."""

    draws = 0

    def tasks(self, split: str) -> Sequence[Task]:
        raise NotImplementedError

    def sample(self, n: int, *, split: str = "train", seed: int | None = None) -> list[Task]:
        """Draw n tasks, all different while the split is large enough.

        The same seed draws the same tasks. Without one, each call is the next draw of a fixed stream, whose place
        `state_dict` keeps.
        """
        tasks = self.tasks(split)
        if not tasks:
            raise EnvironmentFault(f"split {split!r} of {getattr(self, 'name', 'this world')} has no tasks to sample")
        if seed is None:
            key, self.draws = f"draw {self.draws}", self.draws + 1
        else:
            key = f"seed {seed}"
        rng = random.Random(key)
        places = rng.sample(range(len(tasks)), n) if n <= len(tasks) else rng.choices(range(len(tasks)), k=n)
        return [tasks[i] for i in places]

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draws = state["draws"]


def hashed_split(text: str) -> str:
    """`train`, `dev` or `test` (80/10/10) by a hash of the text, the same in every run.

    >>> hashed_split("task 0"), hashed_split("task 1"), hashed_split("task 2")
    ('dev', 'test', 'train')
    """
    place = int(_digest(text), 16) % 10
    return "train" if place < 8 else "dev" if place == 8 else "test"


def invented_names(rng: random.Random, count: int, without: Collection[str] = ()) -> list[str]:
    """Different names of two syllables and a last letter, which nobody can know anything about."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = (rng.choice("bdfgklmnprstv") + rng.choice("aeiou") for _ in range(2))
        name = "".join([*syllables, rng.choice("lnrst")]).capitalize()
        if name not in without:
            found[name] = None
    return list(found)


# -- a world of one's own functions ----------------------------------------------------------------------------------


class World(Tasks):
    """An environment made of typed functions and a table of tasks."""

    def __init__(
        self,
        tools: Sequence[Callable[..., Any]],
        tasks: str | Path | Sequence[Mapping[str, Any]],
        score: Callable[..., float | Awaitable[float]],
        *,
        instructions: str = "",
        setup: Callable[[dict[str, Any]], Any] | None = None,
        name: str = "world",
        reward_range: tuple[float, float] = (0.0, 1.0),
        max_steps: int | None = None,
        max_chars: int = 4000,
        call_seconds: float = 30.0,
    ):
        """tools: functions; `tool` is applied where it was not. One whose first parameter is called `state` is given
            the episode's own state, and a fork undoes what it changes there. What a tool writes elsewhere (a global, a
            file) is not undone, neither by a fork nor between episodes.
        tasks: a JSON-lines file or a list of rows `{prompt, id?, split?, domain?, difficulty?, skills?, ...}`. A row
            without an id gets a hash of its content; one without a split falls into train, dev or test (80/10/10) by a
            hash of its prompt.
        score: `score(state, answer, row) -> float`, sync or async; state is None without `setup`, and the answer is ''
            for an agent that was cut off.
        instructions: the system message.
        setup: makes a fresh state from a task's row at every reset.
        max_steps, max_chars, call_seconds: the limits of `ToolSession`.

        Raises PartError for tools that do not fit together, FormatError for a row that is not a task.
        """
        self.name, self.instructions, self.score, self.setup = name, instructions, score, setup
        self.reward_range = reward_range
        self.limits = {"max_steps": max_steps, "max_chars": max_chars, "call_seconds": call_seconds}
        self.functions = {f.__name__: f if hasattr(f, "schema") else tool(f) for f in tools}
        if len(self.functions) < len(tools):
            raise PartError(f"world {name!r}: two tools share a name among {[f.__name__ for f in tools]}")
        needy = [f.__name__ for f in tools if _takes_state(f)]
        if needy and setup is None:
            raise PartError(f"world {name!r}: tool {needy[0]!r} takes `state`; give setup=, which makes it from a row")
        self._splits: dict[str, list[Task]] = {"train": [], "dev": [], "test": []}
        seen: dict[str, int] = {}
        for n, row in enumerate(_read_rows(Path(tasks)) if isinstance(tasks, (str, Path)) else tasks, 1):
            task = self._task(dict(row), n)
            if task.id in seen:
                raise FormatError(f"world {name!r}: tasks {seen[task.id]} and {n} have the same id {task.id!r}")
            seen[task.id] = n
            self._splits.setdefault(task.split, []).append(task)

    def _task(self, row: dict[str, Any], n: int) -> Task:
        prompt = row.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise FormatError(f"world {self.name!r}: task {n} has no text in 'prompt'; its keys are {sorted(row)}")
        return Task(
            id=str(row.get("id", f"{self.name}/{_digest(json.dumps(row, sort_keys=True, default=str))}")),
            environment=self,
            split=row.get("split", hashed_split(prompt)),
            data=row,
            domain=row.get("domain", ""),
            difficulty=float(row.get("difficulty", 0.0)),
            skills=tuple(row.get("skills", ())),
            provenance=row.get("provenance", self.name),
        )

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._splits:
            raise PartError(f"world {self.name!r} has no split {split!r}; {suggest(split, self._splits)}")
        return self._splits[split]

    def open(self) -> "WorldSession":
        return WorldSession(self)


class WorldSession(ToolSession):
    """One episode of a `World`."""

    def __init__(self, world: World):
        super().__init__(**world.limits)
        self.world = world
        self.state: Any = None

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = [f.schema for f in self.world.functions.values()]  # type: ignore[attr-defined]
        self.row = copy.deepcopy(task.data)
        self.state = self.world.setup(copy.deepcopy(task.data)) if self.world.setup else None
        system = [Message("system", self.world.instructions)] if self.world.instructions else []
        return Observation((*system, Message("user", task.data["prompt"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        function = self.world.functions[name]
        hints = _hints(function)
        given = {key: _typed(hints[key], value) for key, value in arguments.items()}
        result = function(self.state, **given) if _takes_state(function) else function(**given)
        return await result if inspect.isawaitable(result) else result

    async def finish(self, answer: str) -> float:
        score = self.world.score(self.state, answer, self.row)
        return self._in_range(await score if inspect.isawaitable(score) else score)

    def current_reward(self) -> float | Awaitable[float]:
        """What an agent that is cut off now has earned; to be awaited where the score is async."""
        score = self.world.score(self.state, "", self.row)
        return self._later(score) if inspect.isawaitable(score) else self._in_range(score)

    async def _later(self, score: Awaitable[float]) -> float:
        return self._in_range(await score)

    def _in_range(self, score: float) -> float:
        low, high = self.world.reward_range
        if not low <= score <= high:  # NaN compares false
            place = f"world {self.world.name!r}, task {self.row.get('id', self.row['prompt'][:40])!r}"
            raise ScoreError(f"{place}: score is {score}, outside reward_range {self.world.reward_range}")
        return float(score)

    def save(self) -> Any:
        return copy.deepcopy(self.state)

    def load(self, state: Any) -> None:
        self.state = copy.deepcopy(state)


def _takes_state(function: Callable[..., Any]) -> bool:
    return next(iter(inspect.signature(function).parameters), "") == "state"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read_rows(file: Path) -> list[dict[str, Any]]:
    rows = []
    for n, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FormatError(f"{file}:{n} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise FormatError(f"{file}:{n} is {_show(row)}; a task is an object with a 'prompt'")
        rows.append(row)
    return rows
