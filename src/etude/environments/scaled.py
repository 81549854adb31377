"""Simulated environments made from a pool of tools: domains are found in it, databases made, tasks walked.

Environment scaling, AgentScaler, Fang et al. 2025, arXiv:2509.13311, section 2. A grammar makes eight tools of each
schema in `scaled.yaml`. All of them in one pool, their parameter lists make a graph whose communities are the domains
(`tools.toolgraph`); a domain's database has the tables that its tools name, and every tool is one SQL statement on it.
A task is one or two directed walks over the domain's tools: from a start tool to one that takes what it gave, with
arguments drawn, each call executed; the calls and the database they lead to are the gold, and a scripted user asks for
it, one wish at a time.

The final database must equal gold. Where gold only reads, which no state shows, the calls that were answered without an
error must be the gold ones. Both verdicts are kept in the episode's scores as `state` and `calls`.

Departures: a grammar instead of 30,000 collected APIs; words instead of embeddings for the graph; the edges'
direction and the arguments follow from the columns, and the user's words from templates, instead of a model's.
"""

import dataclasses
import functools
import hashlib
import json
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession, hashed_split
from etude.environments.functions import ToolError
from etude.protocols import Observation, Step, Task
from etude.tools.toolgraph import communities
from etude.trajectory import Message, ToolCall

THRESHOLD = 0.2  # any up to 0.4 finds the same domains
GENERAL = 16
OWNERS, RECORDS = 4, 5  # rows of a task's database; one owner has two records
READS = ("find", "get")
Call = tuple[str, dict[str, str]]


# -- tools and domains -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """One statement on one table, by the grammar: op is find, get, set, delete or insert."""

    name: str
    op: str
    table: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]

    @property
    def writes(self) -> bool:
        return self.op not in READS

    def leads_to(self, other: "Tool") -> bool:
        """Whether a walk may go on: what the other needs first is given here, and a read must tell something new."""
        key = other.takes[0]
        if self.writes:
            return key in self.gives and other.op == "set" and other.takes[1] not in self.takes
        return key in self.gives and key not in self.takes

    @property
    def schema(self) -> dict[str, Any]:
        """`{name, description, parameters}`."""
        column = self.takes[-1]
        says = {
            "find": f"the {self.table}s of {_one(self.takes[0])}",
            "get": f"read {_one(self.table)}",
            "set": f"another {column} for {_one(self.table)}",
            "delete": f"end {_one(self.table)}",
            "insert": f"a new {self.table}",
        }
        properties = {name: {"type": "string"} for name in self.takes}
        parameters = {"type": "object", "properties": properties, "required": list(self.takes)}
        return {"name": self.name, "description": says[self.op], "parameters": parameters}


@dataclass(frozen=True)
class Domain:
    """A community of tools."""

    name: str
    """The noun of its records."""
    tools: tuple[Tool, ...]

    @property
    def row(self) -> dict[str, Any]:
        return _file()["schemas"][self.name]

    def tables(self) -> dict[str, list[str]]:
        """Table -> its columns, the key first: what the tools take and give."""
        found: dict[str, list[str]] = {}
        for tool in self.tools:
            if tool.op == "get":
                found[tool.table] = [*tool.takes, *tool.gives]
        return found

    def values(self, column: str) -> list[str]:
        """What may be in a column other than a key."""
        pool = (self.row["about"] | self.row["columns"])[column]
        return _file()["pools"][pool] if isinstance(pool, str) else [str(value) for value in pool]


def _one(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@functools.cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def grammar(record: str) -> list[Tool]:
    """The tools of one schema."""
    row, rng = _file()["schemas"][record], random.Random(record)
    verb = {op: rng.choice(_file()[op]) for op in (*READS, "set", "delete", "insert")}
    owner, about, columns = row["owner"], *row["about"], list(row["columns"])
    return [
        Tool(f"{verb['get']}_{owner}", "get", owner, (owner,), (about,)),
        Tool(f"{verb['set']}_{about}", "set", owner, (owner, about), (owner,)),
        Tool(f"{verb['find']}_{record}s", "find", record, (owner,), (record,)),
        Tool(f"{verb['get']}_{record}", "get", record, (record,), (owner, *columns)),
        *(Tool(f"{verb['set']}_{column}", "set", record, (record, column), (record,)) for column in columns),
        Tool(f"{verb['delete']}_{record}", "delete", record, (record,), ()),
        Tool(f"{verb['insert']}_{record}", "insert", record, (owner, columns[0]), (record,)),
    ]


def pool() -> list[Tool]:
    """All tools, in no order that says where they come from."""
    tools = [tool for record in _file()["schemas"] for tool in grammar(record)]
    random.Random("pool").shuffle(tools)
    return tools


@functools.cache
def domains() -> dict[str, Domain]:
    """The communities of the pool, each under the table that most of its tools are about."""
    tools = pool()
    parameters = [" ".join([*tool.takes, *tool.gives]) for tool in tools]
    found: dict[str, Domain] = {}
    for places in communities(parameters, threshold=THRESHOLD):
        some = sorted((tools[n] for n in places), key=lambda tool: tool.name)
        tables = [tool.table for tool in some]
        name = max(sorted(set(tables)), key=tables.count)
        found[name] = Domain(name, tuple(some))
    return {record: found[record] for record in _file()["schemas"]}


# -- databases -------------------------------------------------------------------------------------------------------


class Database:
    """SQLite in memory with a domain's tables; each of its tools is a statement."""

    def __init__(self, domain: Domain, rows: dict[str, list[list[str]]] | None = None, copy: bytes = b""):
        """rows: table -> rows. copy: what `serialize` gave, in their place."""
        self.tables, self.tools = domain.tables(), {tool.name: tool for tool in domain.tools}
        self.connection = sqlite3.connect(":memory:")
        if copy:
            self.connection.deserialize(copy)
        for table, columns in () if copy else self.tables.items():
            typed = [f'"{columns[0]}" TEXT PRIMARY KEY', *(f'"{column}" TEXT' for column in columns[1:])]
            self.connection.execute(f'CREATE TABLE "{table}" ({", ".join(typed)})')
            places = ", ".join("?" * len(columns))
            self.connection.executemany(f'INSERT INTO "{table}" VALUES ({places})', (rows or {})[table])
            self.connection.execute(f'CREATE TABLE "last {table}" AS SELECT max("{columns[0]}") AS key FROM "{table}"')
        self.connection.commit()

    def call(self, name: str, arguments: dict[str, str]) -> str:
        """What the tool answers. ToolError for a key that is not there."""
        tool, (first, *rest) = self.tools[name], arguments.values()
        self._check(tool.takes[0], first)
        key = self.tables[tool.table][0]
        if tool.op == "find":
            found = self._all(f'SELECT "{key}" FROM "{tool.table}" WHERE "{tool.takes[0]}" = ? ORDER BY 1', first)
            return ", ".join(row[0] for row in found) or "none"
        if tool.op == "get":
            columns = self.tables[tool.table]
            (values,) = self._all(f'SELECT * FROM "{tool.table}" WHERE "{key}" = ?', first)
            return json.dumps(dict(zip(columns, values, strict=True)), separators=(",", ":"))
        if tool.op == "set":
            self._run(f'UPDATE "{tool.table}" SET "{tool.takes[1]}" = ? WHERE "{key}" = ?', rest[0], first)
            return "ok"
        if tool.op == "delete":
            self._run(f'DELETE FROM "{tool.table}" WHERE "{key}" = ?', first)
            return "ok"
        columns = self.tables[tool.table]
        new = self._next(tool.table)
        values = dict.fromkeys(columns, "") | {key: new} | arguments
        self._run(f'INSERT INTO "{tool.table}" VALUES ({", ".join("?" * len(columns))})', *values.values())
        return new

    def _check(self, table: str, key: str) -> None:
        """What a tool takes first is the key of a table of the same name."""
        if not self._all(f'SELECT 1 FROM "{table}" WHERE "{table}" = ?', key):
            raise ToolError(f"no {table} {key!r}; give one that you were told of")

    def _next(self, table: str) -> str:
        """A key of the same shape that no row ever had."""
        ((last,),) = self._all(f'SELECT key FROM "last {table}"')
        head = last.rstrip("0123456789")
        new = f"{head}{int(last[len(head) :]) + 1}"
        self._run(f'UPDATE "last {table}" SET key = ?', new)
        return new

    def _all(self, statement: str, *values: str) -> list[tuple[str, ...]]:
        return self.connection.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: str) -> None:
        self.connection.execute(statement, values)
        self.connection.commit()

    def digest(self) -> str:
        """A hash of all rows, in whatever order they were written."""
        told = {table: sorted(self._all(f'SELECT * FROM "{table}"')) for table in self.tables}
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


# -- tasks -----------------------------------------------------------------------------------------------------------


class Unfit(Exception):
    """A walk that leads nowhere, or tells what was known; draw again."""


@dataclass(frozen=True)
class Walk:
    """A gold sequence, the user's words that ask for it, and what the agent may say in the end."""

    calls: list[Call]
    wish: str
    answer: str


def populate(domain: Domain, rng: random.Random) -> dict[str, list[list[str]]]:
    """Rows of a fresh database."""
    row, record = domain.row, domain.name
    people: dict[str, None] = {}
    while len(people) < OWNERS:
        people[f"{rng.choice(_file()['first'])} {rng.choice(_file()['last'])}"] = None
    keys: dict[str, None] = {}
    while len(keys) < RECORDS:
        keys["".join(str(rng.randint(1, 8)) if c == "0" else c for c in row["id"])] = None  # no 9: there is a next one
    owners = [*people, rng.choice(list(people))]
    rng.shuffle(owners)
    held = zip(keys, owners, strict=True)
    return {
        row["owner"]: [[person, rng.choice(domain.values(*row["about"]))] for person in people],
        record: [[key, owner, *(rng.choice(domain.values(c)) for c in row["columns"])] for key, owner in held],
    }


def walk(domain: Domain, database: Database, rng: random.Random, length: int) -> Walk:
    """A directed random walk of so many tools, executed on the database as it goes. Raises Unfit."""
    tool, record, owner = rng.choice(domain.tools), domain.name, domain.row["owner"]
    start = tool.takes[0]
    key = rng.choice([row[0] for row in database._all(f'SELECT "{start}" FROM "{start}" ORDER BY 1')])
    known, noun = {key}, f"{record} {key}" if start == record else key
    calls, clauses, answer, visited = list[Call](), list[str](), "Done.", [tool]
    while True:
        arguments, last = {tool.takes[0]: key}, len(visited) == length
        if tool.writes:
            its = f"its {tool.takes[-1]}" if noun == "it" else f"the {tool.takes[-1]} of {noun}"
            if tool.op == "delete":
                clauses.append(f"{rng.choice(['cancel', 'remove', 'delete'])} {noun}")
            else:
                arguments[tool.takes[1]] = value = rng.choice(domain.values(tool.takes[1]))
                asked = f"{rng.choice(['change', 'set', 'update'])} {its} to {value}"
                created = (
                    f"{rng.choice(['add', 'make', 'create'])} {_one(record)} for {noun} with {tool.takes[1]} {value}"
                )
                clauses.append(asked if tool.op == "set" else created)
        before = database.digest()
        said = database.call(tool.name, arguments)
        if tool.writes and database.digest() == before:
            raise Unfit  # the value was there before
        calls.append((tool.name, arguments))
        if last and tool.op == "find":
            clauses.append(f"tell me which {record}s {noun} has")
            answer = f"{noun[0].upper()}{noun[1:]} has {said}."
        elif last and tool.op == "get":
            column = rng.choice(tool.gives)
            clauses.append(f"tell me the {column} of {noun}")
            answer = f"The {column} is {json.loads(said)[column]}."
        if last:
            words = " and ".join(clauses)
            opening = rng.choice(["Please {}.", "Could you {}?", "{}.", "I need you to {}.", "Can you {}, please?"])
            wish = opening.format(words)
            return Walk(calls, wish[0].upper() + wish[1:], answer)
        following = [other for other in domain.tools if tool.leads_to(other) and other not in visited]
        if not following:
            raise Unfit
        after = rng.choice(following)
        if not tool.writes:
            noun = f"{noun}'s {record}" if tool.op == "find" else f"the {owner} of {noun}"
            key = said if tool.op == "find" else json.loads(said)[after.takes[0]]
            if key in known or ", " in key or key == "none":
                raise Unfit
            known.add(key)
        else:
            key, noun = said if tool.op == "insert" else key, "it"
        tool = after
        visited.append(tool)


@part
@dataclass(eq=False)
class scaled(Tasks):
    """Domains found in a pool of tools; databases, tools, wishes and their gold made by code.

    >>> task = scaled().tasks("test")[0]
    >>> task.id
    'scaled/16/test/0'
    """

    domains: int = GENERAL
    """How many of the general domains `train`, `dev` and `test` are of, 1 to 16."""
    train: int = 2000
    """Tasks in the splits `train` and `vertical`; each other split has a tenth."""
    max_steps: int = 12
    """Messages after which the database is judged as it is."""
    name = "scaled"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 1 <= self.domains <= GENERAL:
            raise PartError(f"environments/scaled: domains is {self.domains!r}; there are 1 to {GENERAL} general ones")
        found = domains()
        uses = {record: row.get("use", "general") for record, row in _file()["schemas"].items()}
        self._general = [found[record] for record in uses if uses[record] == "general"][: self.domains]
        self._held_out = [found[record] for record in uses if uses[record] == "held out"]
        self._vertical = [found[record] for record in uses if uses[record] == "vertical"]

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of a split; each is made when it is looked at. Raises PartError for another split.

        `train`, `dev`, `test`: one or two wishes in the general domains. `domains`: in domains that none of these has.
        `vertical`: one wish in one further domain; `hard`: two wishes in that domain, three calls or more.
        """
        few = self.train // 10
        sizes = {"train": self.train, "dev": few, "test": few, "domains": few, "vertical": self.train, "hard": few}
        if split not in sizes:
            raise PartError(f"environments/scaled has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        general = split in ("train", "dev", "test")
        identity = f"scaled/{self.domains}/{split}/{i}" if general else f"scaled/{split}/{i}"
        among = {"domains": self._held_out, "vertical": self._vertical, "hard": self._vertical}
        rng = random.Random(identity)
        wishes = {"vertical": 1, "hard": 2}.get(split) or rng.choice([1, 1, 2])
        while True:
            domain = rng.choice(among.get(split, self._general))
            try:
                data = draw(domain, rng, [rng.choice([1, 2, 2, 3]) for _ in range(wishes)])
            except Unfit:
                continue
            calls = [call for some in data["calls"] for call in some]
            if split == "hard" and len(calls) < 3:
                continue
            if general and hashed_split(" ".join(data["wishes"])) != split:
                continue  # a request belongs to the split that its words fall into, so no two splits hold the same one
            ops = {tool.name: tool.op for tool in domain.tools}
            skills = tuple(dict.fromkeys(ops[name] for name, _ in calls))
            return Task(identity, self, split, data, domain.name, float(len(calls)), skills, "scaled.yaml")

    def open(self) -> "ScaledSession":
        return ScaledSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """For each wish its calls, one a message, then a short answer. The seed changes nothing."""
        said, n = list[Message](), 0
        for calls, answer in zip(task.data["calls"], task.data["answers"], strict=True):
            for name, arguments in calls:
                n += 1
                said.append(Message("assistant", "", (ToolCall(name, dict(arguments), f"call_{n}"),)))
            said.append(Message("assistant", answer))
        return said


def draw(domain: Domain, rng: random.Random, lengths: Sequence[int]) -> dict[str, Any]:
    """A task as JSON: a database, a walk of each length one after the other, and the state that they lead to."""
    rows = populate(domain, rng)
    database = Database(domain, rows)
    before = database.digest()
    walks = [walk(domain, database, rng, length) for length in lengths]
    writes = {tool.name for tool in domain.tools if tool.writes}
    if database.digest() == before and any(name in writes for each in walks for name, _ in each.calls):
        raise Unfit  # one wish undoes the other, so that doing nothing would do
    order = [tool.name for tool in domain.tools]
    rng.shuffle(order)  # the place of a tool in the list says nothing
    return {
        "rows": rows,
        "tools": order,
        "wishes": [each.wish for each in walks],
        "calls": [each.calls for each in walks],
        "answers": [each.answer for each in walks],
        "state": database.digest(),
    }


# -- episodes --------------------------------------------------------------------------------------------------------


class ScaledSession(ToolSession):
    """One user at one desk."""

    def __init__(self, world: scaled):
        super().__init__(max_steps=world.max_steps)

    async def begin(self, task: Task, seed: int) -> Observation:
        self.domain, self.gold = domains()[task.domain], task.data
        self.database = Database(self.domain, task.data["rows"])
        schemas = {tool.name: tool.schema for tool in self.domain.tools}
        self.tools = [schemas[name] for name in task.data["tools"]]
        self.asked, self.answered = 1, list[Call]()
        system = Message("system", f"You work at {self.domain.row['place']}.")
        return Observation((system, Message("user", task.data["wishes"][0])))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        takes = self.database.tools[name].takes
        ordered = {argument: arguments[argument] for argument in takes}
        try:
            said = self.database.call(name, ordered)
        except UnicodeEncodeError as error:
            raise ToolError(f"{error.object!r} is no text that a database can hold; give another") from error
        self.answered.append((name, ordered))
        return said

    async def reply(self, said: str) -> Sequence[Message] | None:
        """The scripted user: the next wish, whatever was said."""
        if self.asked == len(self.gold["wishes"]):
            return None
        self.asked += 1
        return [Message("user", self.gold["wishes"][self.asked - 1])]

    def verdicts(self) -> dict[str, float]:
        """`state`: the database equals gold. `calls`, where gold only reads: the calls are gold's."""
        gold = [(name, dict(arguments)) for calls in self.gold["calls"] for name, arguments in calls]
        found = {"state": float(self.database.digest() == self.gold["state"])}
        if not any(self.database.tools[name].writes for name, _ in gold):
            found["calls"] = float(self.answered == gold)
        return found

    async def step(self, action: Message | np.ndarray) -> Step:
        step = await super().step(action)
        return dataclasses.replace(step, info=step.info | {"scores": self.verdicts()}) if step.done else step

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def current_reward(self) -> float:
        """What the episode would earn if it ended now."""
        return min(self.verdicts().values())

    def save(self) -> Any:
        return self.database.connection.serialize(), self.asked, list(self.answered)

    def load(self, state: Any) -> None:
        copy, self.asked, answered = state
        self.database, self.answered = Database(self.domain, copy=copy), list(answered)

    async def close(self) -> None:
        if self.task is not None:
            self.database.connection.close()
