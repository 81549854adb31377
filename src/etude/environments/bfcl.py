"""Berkeley Function-Calling Leaderboard, single turn: is the right function called with the right arguments?

Patil et al. 2025, "The Berkeley Function Calling Leaderboard (BFCL)", ICML; data and checkers are those of `bfcl-eval`
(Apache-2.0). Its conversations of several turns are `environments/bfcl_turns`.

One task is one question with the functions on offer; the first assistant message ends the episode with reward 1 or 0
from the leaderboard's own abstract-syntax-tree checker. Irrelevance categories want no call at all, relevance ones any
call. Beware: an agent that never calls anything scores 1 on every irrelevance task, so report that floor next to it.

This is a measure and not a place to practise: there is a `test` split only.

Arguments of `simple_java` and `simple_javascript` are source text of that language. The checker reads the elements of
a Java `Array` as they stand, so that there, and only there, text without quotes is right.

Some answer keys contradict their own functions or checker, so that no call scores 1: live_simple_106-63-0 and
112-68-0, live_multiple_862-181-3 and 964-207-0, simple_java_36 and 65. For simple_java_64 the checker takes a letter of
the right word, and not the word.

Departures: the categories for memory and web search are left out, for they need a search engine, an embedding model,
or many conversations before the one that is judged. Function descriptions do not get the leaderboard's note on Python
syntax; those on Java and JavaScript they get.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from etude.core.errors import EnvironmentFault, MissingExtra, PartError, suggest
from etude.core.parts import part
from etude.protocols import Observation, Step, Task
from etude.trajectory import Message, ToolCall

VERSION = "2026.3.23"
INSTALL = f"pip install --no-deps bfcl-eval=={VERSION}"
CATEGORIES = (
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
SOURCE = {"simple_java": ("Java", "Java 8 SDK"), "simple_javascript": ("JavaScript", "JavaScript")}
"""Categories whose arguments are source text: the language, and what the leaderboard calls its syntax."""
SUFFIXES = {"long": "L", "float": "f"}
"""Of Java's numbers."""


@part
@dataclass
class bfcl:
    """One category of the leaderboard.

    Raises PartError for an unknown category, MissingExtra where `bfcl-eval` is not installed.
    """

    category: str = "simple_python"
    """simple_python, simple_java, simple_javascript, multiple, parallel, parallel_multiple, irrelevance; live_simple,
    live_multiple, live_parallel, live_parallel_multiple, live_irrelevance, live_relevance."""
    limit: int | None = None
    """Only the first so many tasks; None for all."""

    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise PartError(f"environments/bfcl: no category {self.category!r}; {suggest(self.category, CATEGORIES)}")
        self.name = f"bfcl/{self.category}"
        _package()

    def tasks(self, split: str) -> Sequence[Task]:
        """All questions, in the leaderboard's order. Raises EnvironmentFault for any split but `test`."""
        if split != "test":
            raise EnvironmentFault(f"{self.name} has no split {split!r}, only 'test': it is a measure, not practice")
        rows, answers = _rows(self.category)
        return [
            Task(
                id=f"bfcl/{row['id']}",
                environment=self,
                split="test",
                data={"question": row["question"][0], "functions": row["function"], "answer": answers.get(row["id"])},
                domain=self.category,
                skills=("function calling",),
                provenance=f"bfcl-eval {VERSION}",
            )
            for row in rows[: self.limit]
        ]

    def open(self) -> BfclSession:
        return BfclSession(self.category)

    def solve(self, task: Task, seed: int) -> Sequence[Message]:
        """The calls of the answer key, or words alone where no function fits.

        Raises EnvironmentFault for the relevance category, whose tasks come without a key.
        """
        if "irrelevance" in self.category:
            return [Message("assistant", "None of these functions can do that.")]
        if task.data["answer"] is None:
            raise EnvironmentFault(f"{task.id}: the leaderboard gives no answer key; any call scores 1 here")
        functions = {f["name"]: f for f in task.data["functions"]}
        calls = []
        for entry in task.data["answer"]:
            for name, accepted in entry.items():
                arguments = _gold(functions[name], accepted)
                if self.category in SOURCE:
                    write = _java if self.category == "simple_java" else _javascript
                    declared = functions[name]["parameters"]["properties"]
                    arguments = {key: write(value, declared[key]) for key, value in arguments.items()}
                calls.append(ToolCall(name, arguments))
        return [Message("assistant", tool_calls=tuple(calls))]


class BfclSession:
    """One question."""

    def __init__(self, category: str) -> None:
        self.category = category
        self.tools: list[dict[str, Any]] = []
        self.task: Task | None = None
        self.done = False

    async def reset(self, task: Task, seed: int) -> Observation:
        """The question's messages. The seed changes nothing."""
        self.task, self.done = task, False
        functions = task.data["functions"]
        if self.category in SOURCE:
            functions = [source_text(f, *SOURCE[self.category]) for f in functions]
        self.tools = [
            {"name": f["name"], "description": f["description"], "parameters": json_schema(f["parameters"])}
            for f in functions
        ]
        return Observation(tuple(Message(m["role"], m["content"]) for m in task.data["question"]))

    async def step(self, action: Message | np.ndarray) -> Step:
        """Judge the message's calls; `info` says what the checker found wrong. Always the last step."""
        if self.task is None or self.done or not isinstance(action, Message):
            raise EnvironmentFault("bfcl takes one message after each reset, and its session is not waiting for one")
        self.done = True
        calls = [{call.name: call.arguments} for call in action.tool_calls]
        if "relevance" in self.category:  # irrelevance too
            right = (not calls) if "irrelevance" in self.category else bool(calls)
            return Step(Observation(), done=True, reward=float(right))
        unread = [call.name for call in action.tool_calls if not isinstance(call.arguments, dict)]
        if unread:  # the checker takes objects for granted
            info = {"error": [f"the arguments of {unread[0]} are no JSON object"], "error_type": "etude:arguments"}
            return Step(Observation(), done=True, reward=0.0, info=info)
        check, languages = _checker()
        data, language = self.task.data, languages(SOURCE.get(self.category, ("Python",))[0].lower())
        verdict = check(data["functions"], calls, data["answer"], language, self.category, "etude")
        info = {} if verdict["valid"] else {"error": verdict["error"], "error_type": verdict["error_type"]}
        return Step(Observation(), done=True, reward=float(verdict["valid"]), info=info)

    async def snapshot(self) -> tuple[Task | None, bool]:
        return self.task, self.done

    async def restore(self, snapshot: tuple[Task | None, bool]) -> None:
        task, done = snapshot
        if task is not None:
            await self.reset(task, 0)
        self.done = done

    async def close(self) -> None:
        pass


def json_schema(declared: dict[str, Any]) -> dict[str, Any]:
    """The leaderboard's parameter description as JSON Schema: `dict` is an object, `float` a number, and so on."""
    from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI

    schema = {k: v for k, v in declared.items() if k not in ("properties", "items", "optional")}
    schema["type"] = GORILLA_TO_OPENAPI.get(declared.get("type", ""), "string")
    if "properties" in declared:
        schema["properties"] = {name: json_schema(value) for name, value in declared["properties"].items()}
    if "items" in declared:
        schema["items"] = json_schema(declared["items"])
    return schema


def source_text(function: dict[str, Any], language: str, syntax: str) -> dict[str, Any]:
    """The function with arguments that are source text of a language, described as the leaderboard describes them."""
    properties = {}
    for name, declared in function["parameters"]["properties"].items():
        kind = declared["type"]
        text = f"{declared['description']} This is {language} {kind} type parameter in string representation."
        if kind == "any":
            text = f"{declared['description']} This parameter can be of any type of {language} object in string"
            text += " representation."
        if "items" in declared:
            text += (
                f" The list elements are of type {declared['items']['type']}; they are not in string representation."
            )
        if "properties" in declared:
            text += " The dictionary entries have the following schema; they are not in string representation. "
            text += json.dumps(declared["properties"])
        properties[name] = {"type": "string", "description": text}
    description = f"{function['description']} Note that the provided function is in {syntax} syntax."
    return function | {"description": description, "parameters": function["parameters"] | {"properties": properties}}


def _gold(function: dict[str, Any], accepted: dict[str, list[Any]]) -> dict[str, Any]:
    """Arguments that the key accepts: the first accepted value of each parameter that may not be left out.

    accepted: parameter -> accepted values, among which "" means that it may be left out. Objects, alone or in a list,
    again map their fields to accepted values.
    """

    def fields(value: Any) -> Any:
        if isinstance(value, list):
            return [fields(v) if isinstance(v, dict) else v for v in value]
        return {k: v[0] for k, v in value.items() if "" not in v} if isinstance(value, dict) else value

    required = function["parameters"]["required"]
    chosen = {name: v for name, v in accepted.items() if name in required or "" not in v}
    return {name: fields(next((v for v in values if v != ""), "")) for name, values in chosen.items()}


def _java(value: Any, declared: dict[str, Any]) -> str:
    """A value as the Java that the leaderboard reads as this value."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        puts = "".join(f'put("{key}", {json.dumps(item)}); ' for key, item in value.items())
        return f"new HashMap<String, Object>() {{{{ {puts}}}}}"
    if isinstance(value, list) and declared["type"] == "Array":
        return f"new String[]{{{', '.join(map(str, value))}}}"
    if isinstance(value, list):
        items = [json.dumps(x) + SUFFIXES.get(declared["items"]["type"], "") for x in value]
        return f"new ArrayList<>(Arrays.asList({', '.join(items)}))"
    return json.dumps(value) + SUFFIXES.get(declared["type"], "")


def _javascript(value: Any, declared: dict[str, Any]) -> str:
    """A value as the JavaScript that the leaderboard reads as this value."""
    return value if isinstance(value, str) else json.dumps(value)


def _package() -> Path:
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"bfcl-eval is not installed; run:  {INSTALL}")
    return Path(spec.submodule_search_locations[0])


@cache
def _rows(category: str) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Questions in file order, and answer keys by question id.

    Models may not emit dots in a function's name, so `math.factorial` is `math_factorial` everywhere from here on: in
    the tools, and in what the checker compares.
    """

    def read(file: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    name = f"BFCL_v4_{category}.json"
    rows = read(_package() / "data" / name)
    for row in rows:
        for function in row["function"]:
            function["name"] = function["name"].replace(".", "_")
    key = _package() / "data" / "possible_answer" / name
    answers = {
        row["id"]: [{f.replace(".", "_"): accepted for f, accepted in entry.items()} for entry in row["ground_truth"]]
        for row in (read(key) if key.exists() else [])
    }
    return rows, answers


@cache
def _checker() -> tuple[Callable[..., dict[str, Any]], Any]:
    """The leaderboard's checker and its enumeration of languages.

    The checker's module imports a table of every model on the leaderboard, and with it their clients. The table is read
    for names with dots only, of which there are none here, so an empty one stands in during the import.
    """
    table = "bfcl_eval.constants.model_config"
    stand_in = ModuleType(table)
    stand_in.__dict__["MODEL_CONFIG_MAPPING"] = {}
    real = sys.modules.setdefault(table, stand_in)
    try:
        from bfcl_eval.constants.enums import Language
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    finally:
        if real is stand_in:
            del sys.modules[table]
    return ast_checker, Language
