"""Questions over the data of TPC-H, answered by SQL: a shop's orders, customers, suppliers and parts in eight tables.

Data and the 22 reference queries are those of DuckDB's extension `tpch` (MIT), after the specification of the
Transaction Processing Performance Council (tpc.org/tpch); the questions are in words of our own, in `tpch.yaml`, as are
simpler ones over the same tables. What is drawn into them comes from the specification's ranges, and what is right is
what the query says: nothing here is a TPC result.

The agent reads the schema, tries queries and ends with `submit`: a statement, for answers may have hundreds of rows.
Its rows are judged and not its text: they must be those of the query, in any order, with values in the order that the
question names, numbers that are no counts to a millionth. The reward is 1 or 0, so doing nothing earns 0.

Difficulty is 1 for one table to 5 for nested queries, and 6 to 8 for the 22. The agent's statements run in worker
processes of their own, on a file that they can only read and without the extension, which knows the answers.
"""

import atexit
import hashlib
import importlib.util
import json
import math
import random
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks
from etude.environments.functions import ToolError
from etude.environments.hosted import HostedSession
from etude.protocols import Observation, Task
from etude.tools.process import Crew
from etude.tools.sql import TOOLS, Database, table
from etude.trajectory import Message, ToolCall

INSTALL = "pip install 'etude[tpch]'"
SPLITS = {"train": range(8), "dev": range(8, 9), "test": range(9, 10)}  # of ten parts of all possible questions
DRAWS = 2000  # until one is of the split and its answer is not empty
ROWS = 20_000
SUBMIT = {
    "name": "submit",
    "description": "give the answer as one SQL statement, whose rows are judged; this ends the task",
    "parameters": {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
}
SYSTEM = """\
Answer a question about the data of a wholesale shop, in a DuckDB database. Look at the schema, try queries, then call
submit with a statement that selects exactly the rows and values that the question asks for, the values in its order,
the rows in any. The revenue of a line is l_extendedprice * (1 - l_discount). Do not round. Today is 1998-12-01."""


@part
@dataclass(eq=False)
class tpch(Tasks):
    """The 22 queries with drawn parameters, and simpler questions; the tasks of a split take the kinds in turn.

    No question is in two splits. Making the data takes some seconds, once in a process.
    """

    kinds: list[str] | str = ""
    """Names of `tpch.yaml`, such as `q5` or `[suppliers, never ordered]`; by default all."""
    scale: float = 0.01
    """Of the data: 1 has six million lines. Keys of customers are drawn for 0.01 and more."""
    max_steps: int = 20
    """Messages after which the episode ends without an answer."""
    size: int = 2000
    """Tasks in the split `train`; `dev` and `test` have a tenth."""
    name = "tpch"
    reward_range = (0.0, 1.0)
    at_once = 8

    def __post_init__(self) -> None:
        self.kinds = [self.kinds] if isinstance(self.kinds, str) and self.kinds else list(self.kinds) or list(kinds())
        for kind in self.kinds:
            if kind not in kinds():
                raise PartError(f"environments/tpch: no kind {kind!r}; {suggest(kind, kinds())}")
        if not 0.01 <= self.scale <= 1:
            raise PartError(f"environments/tpch: scale is {self.scale!r}; give 0.01 to 1")
        extension()

    @cached_property
    def crew(self) -> Crew:
        settings = {"path": file(self.scale), "engine": "duckdb", "rows": 50, "seconds": 20, "chars": 10**6}
        return Crew("etude.tools.sql:Database", settings=settings, size=self.at_once, seconds=30, memory_mb=1024)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "crew"}  # another process has its own file

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev` or `test`. Raises PartError for another split."""
        if split not in SPLITS:
            raise PartError(f"environments/tpch has no split {split!r}; {suggest(split, SPLITS)}")
        return LazyTasks(lambda i: self._make(split, i), self.size if split == "train" else self.size // 10)

    def _make(self, split: str, i: int) -> Task:
        n, which = divmod(i, len(self.kinds))
        kind = self.kinds[which]
        row, place = kinds()[kind], f"{kind}@{self.scale:g}/{split}/{n}"
        rng = random.Random(place)
        for _ in range(DRAWS):
            drawn = draw(row, rng)
            digest = hashlib.sha256(json.dumps([kind, drawn]).encode()).digest()
            if digest[0] % 10 not in SPLITS[split]:
                continue
            sql = statement(row, drawn)
            if answered(self.scale, sql):
                data = {"question": row["question"].format(**drawn), "sql": sql}
                difficulty, skills = float(row["difficulty"]), tuple(row["skills"])
                return Task(f"tpch/{place}", self, split, data, kind, difficulty, skills, "TPC-H by DuckDB")
        raise EnvironmentFault(f"tpch/{place}: {DRAWS} draws gave no question with an answer")

    def open(self) -> "TpchSession":
        return TpchSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The reference query, tried and then submitted."""
        return [
            Message("assistant", tool_calls=(ToolCall(name, {"sql": task.data["sql"]}, f"call_{n}"),))
            for n, name in enumerate(("query", "submit"), 1)
        ]

    def secrets(self, task: Task) -> list[str]:
        """The reference query."""
        return [task.data["sql"]]


# -- the data --------------------------------------------------------------------------------------------------------


def extension() -> str:
    """The extension's file."""
    spec = importlib.util.find_spec("duckdb_extension_tpch")
    if spec is None or spec.origin is None:
        raise missing_extra("tpch", "duckdb-extension-tpch")
    import duckdb

    place = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / "tpch.duckdb_extension"
    if not place.exists():
        raise EnvironmentFault(f"{place} is absent: duckdb {duckdb.__version__} needs its own extension; {INSTALL}")
    return str(place)


@cache
def file(scale: float) -> str:
    """The database, made once in a process and removed with it."""
    import duckdb

    folder = tempfile.TemporaryDirectory(prefix="etude-tpch-")
    atexit.register(folder.cleanup)
    path = str(Path(folder.name, "tpch.duckdb"))
    with duckdb.connect(path) as connection:
        connection.execute(f"LOAD '{extension()}'")
        connection.execute("CALL dbgen(sf = $1)", [scale])
    return path


@cache
def reference() -> dict[int, str]:
    """The suite's 22 queries by number."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension()}'")
        return dict(connection.execute("SELECT query_nr, query FROM tpch_queries()").fetchall())


@cache
def reader(scale: float) -> Database:
    return Database(file(scale), engine="duckdb", rows=ROWS, chars=10**7, seconds=60)


def answered(scale: float, sql: str) -> bool:
    """Whether the query's answer holds anything but nulls and noughts, which doing nothing might meet."""
    result = reader(scale).query(sql)
    if "error" in result:
        raise EnvironmentFault(f"tpch.yaml has a query that fails: {result['error']}\n{sql}")
    return any(value not in (None, 0) for row in result["rows"] for value in row) and not result["more"]


# -- questions -------------------------------------------------------------------------------------------------------


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).with_suffix(".yaml")).read_text(encoding="utf-8"))


@cache
def kinds() -> dict[str, dict[str, Any]]:
    """The rows of `tpch.yaml` by name."""
    return {row["name"]: row for row in _table()["questions"]}


def draw(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A value for each parameter of a question, all different that come from one list."""
    drawn = dict[str, Any]()
    for name, source in row["draw"].items():
        if isinstance(source, str):
            taken = [drawn[other] for other, used in row["draw"].items() if used == source and other in drawn]
            drawn[name] = rng.choice([value for value in _table()["values"][source] if value not in taken])
        elif len(source) == 3:
            drawn[name] = rng.choice(_range(source))
        else:
            of = _table()["values"][source[0]] if isinstance(source[0], str) else _range(source[0])
            drawn[name] = ", ".join(map(str, rng.sample(of, source[1])))
    return drawn


def _range(bounds: list[int]) -> list[int]:
    first, last, step = bounds
    return list(range(first, last + 1, step))


def statement(row: dict[str, Any], drawn: dict[str, Any]) -> str:
    """The query of a question: its own, or the suite's with drawn values in the place of the suite's."""
    if "sql" in row:
        return row["sql"].format(**drawn)
    query, values = reference()[row["query"]], {old: new.format(**drawn) for old, new in row["replace"].items()}
    for old in values:
        if old not in query:
            raise EnvironmentFault(f"tpch.yaml, {row['name']}: {old!r} is not in query {row['query']} of the suite")
    return re.sub("|".join(map(re.escape, values)), lambda match: values[match[0]], query)


# -- judging ---------------------------------------------------------------------------------------------------------


def same(given: list[list[Any]], expected: list[list[Any]]) -> bool:
    """Whether these are the same rows, in any order and as often; numbers with a fraction may differ by a millionth.

    >>> same([["b", 2.0000001], ["a", 1.0]], [["a", 1.0], ["b", 2.0]]), same([[3]], [[4]])
    (True, False)
    """
    if len(given) != len(expected) or any(len(row) != len(expected[0]) for row in given):
        return False
    inexact = [any(isinstance(value, float) for value in column) for column in zip(*expected, strict=True)]

    def parts(row: list[Any]) -> tuple[str, list[Any]]:
        exact = [_plain(value) for value, loose in zip(row, inexact, strict=True) if not loose]
        return json.dumps(exact), [value for value, loose in zip(row, inexact, strict=True) if loose]

    left = defaultdict[str, list[list[Any]]](list)
    for row in given:
        key, numbers = parts(row)
        left[key].append(numbers)
    for row in expected:
        key, numbers = parts(row)
        match = next((one for one in left[key] if all(map(_near, one, numbers))), None)
        if match is None:
            return False
        left[key].remove(match)
    return True


def _plain(value: Any) -> Any:
    """3.0 is 3, and midnight is its day: how a value is typed is not asked."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.removesuffix("T00:00:00") if isinstance(value, str) else value


def _near(a: Any, b: Any) -> bool:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
    return a == b


# -- an episode ------------------------------------------------------------------------------------------------------


class TpchSession(HostedSession):
    """One question."""

    def __init__(self, world: tpch):
        super().__init__(world.crew, max_steps=world.max_steps, call_seconds=120)

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.data, self.given = [*TOOLS, SUBMIT], task.data, None
        return Observation((Message("system", SYSTEM), Message("user", task.data["question"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if name == "submit":
            self.given = (await self._run_safely("query", sql=arguments["sql"], rows=ROWS))["rows"]
            self.done = True
            return "submitted"
        result = await self._run_safely(name, **arguments)
        return result["sql"] if name == "schema" else table(result)

    async def _run_safely(self, method: str, **arguments: Any) -> dict[str, Any]:
        """The database's answer; where a statement was more than its process could bear, the next gets another."""
        try:
            result = await self.ask(method, **arguments)
        except EnvironmentFault as fault:
            if self.worker is None or self.worker.alive:
                raise
            await self.close()
            self.worker = await self.crew.hire()
            raise ToolError("the statement took too much time or memory, so it was ended; ask for less") from fault
        if "error" in result:
            raise ToolError(result["error"])
        return result

    async def finish(self, answer: str) -> float:
        if self.given is None:
            return 0.0
        expected = await self.ask("query", sql=self.data["sql"], rows=ROWS)
        if "error" in expected:
            raise EnvironmentFault(f"the reference query fails: {expected['error']}")
        return float(same(self.given, expected["rows"]))

    def current_reward(self) -> float:
        """Nothing, for what was submitted ends the episode."""
        return 0.0

    def save(self) -> tuple[Any]:
        return (self.given,)

    def load(self, state: tuple[Any]) -> None:
        (self.given,) = state
