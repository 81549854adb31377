"""A world of your own: typed functions, a table of tasks and a score."""

import copy
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.core.errors import FormatError, PartError, ScoreError, suggest
from etude.environments.base import Tasks, ToolSession, digest, hashed_split
from etude.environments.functions import hints_of, show, tool, typed
from etude.protocols import Observation, Task
from etude.trajectory import Message


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
            id=str(row.get("id", f"{self.name}/{digest(json.dumps(row, sort_keys=True, default=str))}")),
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
        hints = hints_of(function)
        given = {key: typed(hints[key], value) for key, value in arguments.items()}
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
            raise FormatError(f"{file}:{n} is {show(row)}; a task is an object with a 'prompt'")
        rows.append(row)
    return rows
