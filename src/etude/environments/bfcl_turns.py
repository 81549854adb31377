"""Berkeley Function-Calling Leaderboard, several turns: a user asks for one thing after another of a small world.

Patil et al. 2025, "The Berkeley Function Calling Leaderboard (BFCL)", ICML, https://gorilla.cs.berkeley.edu; data,
executors and checks are those of `bfcl-eval` (Apache-2.0). Its single questions are `environments/bfcl`.

The worlds are a file system, a calculator, messages, posts, tickets, a broker, a travel agency and a car. Calls are
run; a message without calls ends the turn, and the user's next words come. After each turn that wants calls, the worlds
must be in the state that the leaderboard's own calls bring about, and the results of those must be among the results so
far. The reward is 1 where that held after every turn, else 0, or with `progress` the share of such turns among those
that want calls; more than 20 messages with calls in one turn end the episode with 0, or with the share so far. So does
a limit on turns: the longest solution has 17, so set `max_turns: 40`.

Doing nothing earns 0 of 800 tasks. The leaderboard's own calls earn 1 of 795: those of conversation 173 do not fit
their own function's description in any variant, and miss_func_49 calls a function that is not there yet.

- `base`: all that is needed is there.
- `miss_func`: in one turn the function that it needs is missing, and comes with the next.
- `miss_param`: in one turn the user forgets to say something, and says it in the next.
- `long_context`: files, lists and histories are long, and so are the answers of the tools.

The four are variants of the same 200 conversations; the split goes by the conversation, so that no variant of a test
task is practised.

Departures: a function that comes later is described in the user's message, as the leaderboard does for models without
tools of their own, because a conversation's tools are told once, at its beginning. A call that does not fit its
description is refused and not run. The categories for memory and web search are left out, for they need a search
engine, an embedding model, or many conversations before the one that is judged.
"""

import ast
import copy
import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from etude.core.errors import MissingExtra, PartError, suggest
from etude.core.parts import part
from etude.environments.base import Tasks, ToolSession, hashed_split
from etude.protocols import SPLITS, Observation, Task
from etude.trajectory import Message, ToolCall

VERSION = "2026.3.23"
INSTALL = f"pip install --no-deps bfcl-eval=={VERSION} mpmath"
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
STEPS = 20
"""Messages with calls in one turn; the leaderboard's MAXIMUM_STEP_LIMIT."""
MAX_CHARS = 100_000
"""Of a tool's result; the longest of `long_context` has to fit."""
TYPES = {"dict": "object", "float": "number"}
"""The leaderboard's types that JSON Schema calls otherwise."""
DONE = "Done."
LACKING = "I cannot do that yet: I lack a function or a detail that it needs."


@part
@dataclass(eq=False)
class bfcl_turns(Tasks):
    """One category of the leaderboard's conversations, or `all`.

    Raises PartError for an unknown category, MissingExtra where `bfcl-eval` is not installed.
    """

    category: str = "base"
    """base, miss_func, miss_param, long_context, or all."""
    progress: bool = False
    """Whether the reward is the share of right turns, as in Environment Tuning (Lu et al. 2025, arXiv:2510.10197)."""

    reward_range = (0.0, 1.0)
    optimal = False  # five conversations are not solved by the leaderboard's own calls

    def __post_init__(self) -> None:
        if self.category not in (known := (*CATEGORIES, "all")):
            raise PartError(f"environments/bfcl_turns: no category {self.category!r}; {suggest(self.category, known)}")
        self.name = f"bfcl_turns/{self.category}"
        missing = [package for package in ("bfcl_eval", "mpmath") if importlib.util.find_spec(package) is None]
        if missing:
            raise MissingExtra(f"{missing[0]} is not installed; run:  {INSTALL}")
        self._splits: dict[str, list[Task]] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """The conversations of `train`, `dev` or `test` (80/10/10) in the leaderboard's order.

        Raises PartError for another split.
        """
        if split not in SPLITS:
            raise PartError(f"{self.name} has no split {split!r}; {suggest(split, SPLITS)}")
        if not self._splits:
            self._splits = {name: [] for name in SPLITS}
            for category in CATEGORIES if self.category == "all" else (self.category,):
                for row in _rows(category):
                    task = self._task(category, row)
                    self._splits[task.split].append(task)
        return self._splits[split]

    def _task(self, category: str, row: dict[str, Any]) -> Task:
        return Task(
            id=f"bfcl/{row['id']}",
            environment=self,
            split=hashed_split(f"bfcl/multi_turn_{row['id'].rpartition('_')[2]}"),
            data=row | {"category": category},
            domain=category,
            difficulty=float(len(row["question"])),
            skills=tuple(row["involved_classes"]),
            provenance=f"bfcl-eval {VERSION}",
        )

    def open(self) -> "BfclTurnsSession":
        return BfclTurnsSession(self.progress)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The leaderboard's own calls, one a message, for the next often holds what the last one found.

        Where a turn has more calls than messages are allowed, they come in one.
        """
        said = []
        for turn in task.data["gold"]:
            messages = [tuple(turn)] if len(turn) > STEPS else [(call,) for call in turn]
            said += [Message("assistant", tool_calls=calls) for calls in messages]
            said.append(Message("assistant", DONE if turn else LACKING))
        return said


class BfclTurnsSession(ToolSession):
    """One conversation: the worlds as the agent changes them, and as they should be after the turns so far."""

    def __init__(self, progress: bool = False) -> None:
        super().__init__(max_chars=MAX_CHARS)
        self.progress = progress

    async def begin(self, task: Task, seed: int) -> Observation:
        self.data = task.data
        self.mine, self.right = (_worlds(self.data) for _ in range(2))
        self.turn, self.results, self.called = 0, [], False
        self.errors = list[str]()
        """What was wrong with each turn so far that wants calls; '' for nothing."""
        self.tools = []
        return Observation(self._next_turn())

    def _next_turn(self) -> tuple[Message, ...]:
        """What the user says in this turn, with the functions that come with it."""
        self.max_steps = len(self.actions) + STEPS + 1
        self._offer()
        asked = [Message(m["role"], m["content"]) for m in self.data["question"][self.turn]]
        if added := self.data.get("missed_function", {}).get(str(self.turn)):
            from bfcl_eval.constants.default_prompts import (
                DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_PROMPTING as SAID,
            )

            functions = [tool for tool in self.tools if tool["name"] in added]
            asked.append(Message("user", SAID.format(functions=json.dumps(functions))))
        return tuple(asked)

    def _offer(self) -> None:
        """Set the tools of this turn; in place, for the agent's loop looks at the same list."""
        later = self.data.get("missed_function", {}).items()
        absent = {name for turn, names in later if int(turn) > self.turn for name in names}
        described = (tool for name in self.data["involved_classes"] for tool in _described(name))
        self.tools[:] = [tool for tool in described if tool["name"] not in absent]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.called = True
        self.results.append(_run(self.mine, name, arguments))
        return self.results[-1]

    async def reply(self, said: str) -> tuple[Message, ...] | None:
        self._check()
        self.turn, self.called = self.turn + 1, False
        return self._next_turn() if self.turn < len(self.data["question"]) else None

    def _check(self) -> None:
        """Bring the other worlds to where they should be after this turn, and compare."""
        from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import response_checker, state_checker

        wanted = self.data["gold"][self.turn]
        results = [_run(self.right, call.name, call.arguments) for call in wanted]
        if not wanted:
            return
        if not self.called:
            self.errors.append(f"turn {self.turn}: nothing was called")
            return
        verdicts = state_checker(self.mine, self.right), response_checker(self.results, results, self.turn)
        self.errors.append(next((str(v["error_message"]) for v in verdicts if not v["valid"]), ""))

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def current_reward(self) -> float:
        """Turns that were not played have earned nothing."""
        share = self.errors.count("") / sum(map(bool, self.data["gold"]))
        return share if self.progress else float(share == 1 and self.turn == len(self.data["question"]))

    def save(self) -> Any:
        worlds = copy.deepcopy((self.mine, self.right))
        return worlds, self.turn, list(self.results), self.called, list(self.errors), self.max_steps

    def load(self, state: Any) -> None:
        worlds, self.turn, results, self.called, errors, self.max_steps = state
        (self.mine, self.right), self.results, self.errors = copy.deepcopy(worlds), list(results), list(errors)
        self._offer()


def _worlds(row: dict[str, Any]) -> dict[str, Any]:
    """The leaderboard's executors, by class name, in the state that the conversation begins with."""
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES

    made = {}
    for name in row["involved_classes"]:
        made[name] = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
        if name not in STATELESS_CLASSES:
            config = copy.deepcopy(row["initial_config"].get(name, {}))
            made[name]._load_scenario(config, long_context=row["category"] == "long_context")
    return made


def _run(worlds: dict[str, Any], name: str, arguments: dict[str, Any]) -> str:
    """A call's result as the leaderboard writes it."""
    method = next(getattr(world, name) for world in worlds.values() if hasattr(world, name))
    try:
        result = method(**copy.deepcopy(arguments))
    except Exception as error:  # whatever goes wrong, the leaderboard shows it to the agent
        return f"Error during execution: {error}"
    if not isinstance(result, dict):
        return str(result)
    try:
        return json.dumps(result)
    except TypeError:
        return str(result)


@cache
def _rows(category: str) -> list[dict[str, Any]]:
    """Conversations in file order, each with its `gold`: calls for every turn."""
    rows, keys = (_read(f"{folder}BFCL_v4_multi_turn_{category}.json") for folder in ("", "possible_answer/"))
    for row, key in zip(rows, keys, strict=True):
        parameters = {
            tool["name"]: list(tool["parameters"]["properties"])
            for name in row["involved_classes"]
            for tool in _described(name)
        }
        row["gold"] = [[_call(text, parameters) for text in turn] for turn in key["ground_truth"]]
    return rows


def _call(text: str, parameters: dict[str, list[str]]) -> ToolCall:
    """A call that is written as Python, such as `sort('report.pdf')`; all its arguments are literals."""
    written = ast.parse(text, mode="eval").body
    assert isinstance(written, ast.Call)
    assert isinstance(written.func, ast.Name)
    named = {word.arg: word.value for word in written.keywords if word.arg}
    placed = zip(parameters[written.func.id], written.args, strict=False)
    arguments = {name: ast.literal_eval(value) for name, value in {**dict(placed), **named}.items()}
    return ToolCall(written.func.id, arguments)


@cache
def _described(name: str) -> list[dict[str, Any]]:
    """The functions of one class as tools."""
    from bfcl_eval.constants.executable_backend_config import MULTI_TURN_FUNC_DOC_FILE_MAPPING

    rows = _read(f"multi_turn_func_doc/{MULTI_TURN_FUNC_DOC_FILE_MAPPING[name]}")
    return [{key: _schema(row[key]) for key in ("name", "description", "parameters")} for row in rows]


def _schema(value: Any) -> Any:
    """A description with JSON Schema's names of types."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _schema(item) for key, item in value.items()}
    if isinstance(value.get("type"), str):
        renamed["type"] = TYPES.get(value["type"], value["type"])
    return renamed


def _read(file: str) -> list[dict[str, Any]]:
    spec = importlib.util.find_spec("bfcl_eval")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "data" / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
