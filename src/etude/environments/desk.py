"""Service desks: small worlds of records, tools and written rules, made on demand at a set difficulty.

A task puts the agent behind the desk of a hotel, a bank, a kennel. Somebody asks for something; the agent finds and
reads records, follows the rules it was given and writes. The reward is 1 where the final records are exactly what they
should be and 0 otherwise, whatever was said, so doing nothing earns 0. Difficulty is the number of calls the expert
makes, 1 to 6. Domains are rows of `desk.yaml`; those marked `held_out` share no tool name, record name or identifier
shape with the others, and make the split `domains`.
"""

import copy
import hashlib
import itertools
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Task
from etude.trajectory import Message, ToolCall

HELD_IN = 24
Records = dict[str, dict[str, Any]]


@part
@dataclass(eq=False)
class desk(Tasks):
    """Service desks: procedurally generated worlds with tools, written rules and an exact judge of the final records.

    The world depends on the task alone: the seed of `reset` changes nothing.

    >>> task = desk(difficulty=1).tasks("test")[0]
    >>> task.id
    'desk/1/test/0'
    """

    difficulty: int | str = 2
    """Calls in the expert's solution, 1 to 6, or a range such as `1-3`, mixed evenly."""
    domains: int = HELD_IN
    """How many of the held-in domains are used, 1 to 24."""
    train: int = 2000
    """Tasks in the split `train`."""
    dev: int = 200
    """Tasks in the split `dev`: the domains of train, other requests."""
    test: int = 200
    """Tasks in the split `test`: the domains of train, other requests."""
    domains_test: int = 200
    """Tasks in the split `domains`: domains never seen in the other splits."""
    max_steps: int = 12
    """Messages after which the records are judged as they are."""
    parallel: bool = False
    """Whether the expert puts writes that follow one another into one message."""
    name = "desk"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, _, high = str(self.difficulty).partition("-")
        if not (low.isdecimal() and (high or low).isdecimal() and 1 <= int(low) <= int(high or low) <= len(SHAPES)):
            raise PartError(f"environments/desk: difficulty is {self.difficulty!r}; give 1 to 6, or a range like '1-3'")
        if not 1 <= self.domains <= HELD_IN:
            raise PartError(f"environments/desk: domains is {self.domains!r}; there are 1 to {HELD_IN} held-in domains")
        self._levels = range(int(low), int(high or low) + 1)
        mixed = "" if self.domains == HELD_IN else f"@{self.domains}"  # another mix of domains, other tasks
        self._prefix = f"desk/{self.difficulty}{mixed}"

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test` or `domains`; each is made when it is looked at.

        Raises PartError for another split.
        """
        sizes = {"train": self.train, "dev": self.dev, "test": self.test, "domains": self.domains_test}
        if split not in sizes:
            raise PartError(f"environments/desk has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        identity = f"{self._prefix}/{split}/{i}"
        pool = load_domains()
        names = [n for n in pool if pool[n].held_out] if split == "domains" else list(pool)[: self.domains]
        rng = random.Random(identity)
        level = rng.choice(self._levels)
        while True:
            try:
                draft = Draft(pool[rng.choice(names)], level, rng)
            except Unfit:
                continue
            data = draft.data()
            # A request belongs to the split that its text falls into, so no two splits ever hold the same one.
            if split == "domains" or _home(draft.domain.name, data["request"]) == split:
                return Task(identity, self, split, data, draft.domain.name, float(level), draft.skills(), "desk.yaml")

    def open(self) -> "DeskSession":
        return DeskSession(self.max_steps)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The expert: one call per message (see `parallel`), then one short sentence. The seed changes nothing."""
        tools = load_domains()[task.domain].tools
        calls = [ToolCall(name, arguments, f"call_{n}") for n, (name, arguments) in enumerate(task.data["calls"], 1)]
        turns: list[list[ToolCall]] = []
        for is_read, run in itertools.groupby(calls, lambda call: tools[call.name]["op"] in ("find", "get")):
            group = list(run)
            turns += [group] if self.parallel and not is_read else [[call] for call in group]
        acts = [Message("assistant", tool_calls=tuple(turn)) for turn in turns]
        return [*acts, Message("assistant", task.data["answer"])]


def _home(domain: str, request: str) -> str:
    place = int.from_bytes(hashlib.sha256(f"{domain}: {request}".encode()).digest()[:4], "big") % 10
    return "train" if place < 8 else "dev" if place == 8 else "test"


# -- domains ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """One row of `desk.yaml`, with pools filled in."""

    name: str
    place: str
    entity: str
    plural: str
    id: str
    customer: str
    fields: dict[str, list[Any]]
    statuses: list[str]
    tools: dict[str, dict[str, Any]]
    held_out: bool

    def named(self, *ops: str) -> list[str]:
        """The tools of these operations."""
        return [name for name, row in self.tools.items() if row["op"] in ops]

    def schema(self, name: str) -> dict[str, Any]:
        """`{name, description, parameters}` of one tool."""
        row = self.tools[name]
        one = f"{'an' if self.entity[0] in 'aeiou' else 'a'} {self.entity}"
        if row["op"] in ("find", "get", "note"):
            plural = f"find the {self.plural} of a {self.customer}"
            description = {"find": plural, "get": f"read {one}", "note": f"add a note to {one}"}[row["op"]]
        else:
            ask = row["bare"] if row["op"] == "flag" else row["ask"][0]
            description = ask.format(it=one, value="an amount" if row["op"] == "pay" else f"another {row.get('field')}")
        types = dict.fromkeys([self.customer if row["op"] == "find" else self.entity], "string")
        if row["op"] in VALUE_OPS:
            types[self.argument(name)] = "integer" if row["op"] == "pay" else "string"
        return {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": kind} for argument, kind in types.items()},
                "required": list(types),
            },
        }

    def argument(self, name: str) -> str:
        """What a writing tool calls its value."""
        return {"pay": "amount", "note": "text"}.get(self.tools[name]["op"]) or self.tools[name]["field"]


VALUE_OPS = ("set", "pay", "note", "flag")


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


@cache
def load_domains() -> dict[str, Domain]:
    """Every domain by name, held-in ones first."""
    pools = _file()["pools"]
    return {
        name: Domain(
            name=name,
            place=row["place"],
            entity=row["entity"],
            plural=row.get("plural", row["entity"] + "s"),
            id=row["id"],
            customer=row["customer"],
            fields={key: pools[pool] if isinstance(pool, str) else pool for key, pool in row["fields"].items()},
            statuses=row["statuses"],
            tools=row["tools"],
            held_out=row.get("held_out", False),
        )
        for name, row in sorted(_file()["domains"].items(), key=lambda item: item[1].get("held_out", False))
    }


def operate(domain: Domain, records: Records, name: str, arguments: dict[str, Any]) -> Any:
    """Run one call on the records, in place. Raises ToolError for an id or a value that is not there."""
    row = domain.tools[name]
    if row["op"] == "find":
        return sorted(key for key, record in records.items() if record[domain.customer] == arguments[domain.customer])
    key = arguments[domain.entity]
    if key not in records:
        raise ToolError(f"no {domain.entity} {key!r}; an id looks like {next(iter(records))}")
    record = records[key]
    if row["op"] == "get":
        return record
    if row["op"] == "status":
        record["status"] = row["to"]
        return "ok"
    value = arguments[domain.argument(name)]
    if row["op"] == "set" and value not in domain.fields[row["field"]]:
        raise ToolError(f"{value!r} is no {row['field']}; {suggest(value, domain.fields[row['field']])}")
    if row["op"] == "flag" and value not in row["values"]:
        raise ToolError(f"{value!r} is no {row['field']}; {suggest(value, row['values'])}")
    if row["op"] == "pay" and value <= 0:
        raise ToolError(f"amount is {value}; expected more than 0")
    if row["op"] == "note":
        record["notes"] = [*record.get("notes", ()), value]
    else:
        record[row["gives"] if row["op"] == "pay" else row["field"]] = value
    return "ok"


class DeskSession(ToolSession):
    """One episode: the records, and what they should become."""

    def __init__(self, max_steps: int):
        super().__init__(max_steps=max_steps)
        self.records: Records = {}

    async def begin(self, task: Task, seed: int) -> Observation:
        self.domain = load_domains()[task.domain]
        self.tools = [self.domain.schema(name) for name in task.data["tools"]]
        self.records = copy.deepcopy(task.data["records"])
        self.expected: Records = copy.deepcopy(task.data["records"])
        for name, arguments in task.data["calls"]:
            operate(self.domain, self.expected, name, arguments)
        return Observation((Message("system", task.data["system"]), Message("user", task.data["request"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        return operate(self.domain, self.records, name, arguments)

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: 1.0 or 0.0."""
        return float(self.records == self.expected)

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def save(self) -> Records:
        return copy.deepcopy(self.records)

    def load(self, state: Records) -> None:
        self.records = copy.deepcopy(state)


# -- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """One thing that a request asks for, and what it costs in calls."""

    by: str = "id"
    """How the record is named: by `id`, by its `customer` (one find), or as `both` records of a customer (one find)."""
    reads: bool = False
    """Whether a rule or a field of the record decides the first write (one get per record)."""
    writes: int = 1
    """Writes per record."""
    copies: str = ""
    """Whether the value is another record's, named by `id` (one get) or by its `customer` (a find and a get)."""


WRITE, TWICE, FIND, FIND_TWICE = Goal(), Goal(writes=2), Goal("customer"), Goal("customer", writes=2)
READ, READ_TWICE = Goal(reads=True), Goal(reads=True, writes=2)
FIND_READ, FIND_READ_TWICE = Goal("customer", reads=True), Goal("customer", reads=True, writes=2)
BOTH, BOTH_READ = Goal("both"), Goal("both", reads=True)
COPY, COPY_FROM, FIND_COPY = Goal(copies="id"), Goal(copies="customer"), Goal("customer", copies="id")

SHAPES: dict[int, list[tuple[Goal, ...]]] = {
    1: [(WRITE,)],
    2: [(FIND,), (READ,), (READ,), (COPY,), (TWICE,), (WRITE, WRITE)],
    3: [(FIND_READ,), (FIND_READ,), (READ_TWICE,), (COPY_FROM,), (FIND_COPY,), (FIND_TWICE,), (BOTH,), (READ, WRITE)],
    4: [(FIND_READ_TWICE,), (FIND_READ, WRITE), (READ, READ), (FIND, READ), (COPY, READ), (FIND, COPY), (READ, TWICE)],
    5: [
        (BOTH_READ,),
        (FIND_READ, READ),
        (FIND_READ, FIND),
        (FIND_READ_TWICE, WRITE),
        (COPY_FROM, READ),
        (READ, FIND_COPY),
    ],
    6: [
        (FIND_READ, FIND_READ),
        (FIND_READ_TWICE, READ),
        (BOTH_READ, WRITE),
        (COPY_FROM, FIND_READ),
        (FIND_READ, READ, WRITE),
    ],
}

PLAIN = ["Please {0}.", "Could you {0}?", "{0}.", "I need you to {0}.", "We have to {0}.", "Can you {0}, please?"]
SECOND = ["Also {0}.", "And {0}.", "Then {0}.", "After that, {0}."]
HELLO = ["I'm {0}.", "{0} here.", "My name is {0}.", "Hello, this is {0}.", "Hi, {0} speaking."]
NOTE = ['add the note "{value}" to {it}', 'note "{value}" on {it}', 'write "{value}" on {it}']


@dataclass(frozen=True)
class Guard:
    """A rule: only records of some statuses may be given to a tool; for others another call is made instead."""

    tool: str
    statuses: list[str]
    instead: str
    value: str


@dataclass(frozen=True)
class Code:
    """A rule: the status says which value a flag gets."""

    tool: str
    statuses: list[str]
    value: str
    other: str


class Unfit(Exception):
    """This draw does not work out (a domain without a fitting tool); draw again."""


class Draft:
    """One task as it is being drawn: goals add records, calls, and the words that ask for them."""

    def __init__(self, domain: Domain, level: int, rng: random.Random):
        self.domain, self.rng = domain, rng
        self.records: Records = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.done: dict[str, list[str]] = {}
        self.people: set[str] = set()
        goals = rng.choice(SHAPES[level])
        self.guard: Guard | None = None
        self.limit: int | None = None
        self.code: Code | None = None
        self.rules: list[str] = []
        self.decided: list[str] = []
        self._draw_rules(any(goal.reads for goal in goals))
        first_person = len(goals) == 1 and goals[0].by != "id" and not goals[0].copies and rng.random() < 0.5
        clauses = [self._add(goal, first_person) for goal in goals]
        self.request = self._words(clauses, first_person)
        self._distract()

    # -- rules

    def _draw_rules(self, needed: bool) -> None:
        """Choose rules and word them. A rule that no goal runs into stays as a distraction."""
        domain, rng = self.domain, self.rng
        kinds = [
            *(["guard"] if domain.named("flag", "note") else []),
            *(["limit"] if domain.named("pay") else []),
            *(["code"] if domain.named("flag") else []),
        ]
        for kind in rng.sample(kinds, min(len(kinds), rng.choice([1, 1, 2] if needed else [0, 0, 1]))):
            some = rng.sample(domain.statuses, rng.choice([1, 2]) if len(domain.statuses) > 3 else 1)
            which = f"{' or '.join(some)} {domain.plural}"
            if kind == "limit":
                pay = domain.tools[domain.named("pay")[0]]
                self.limit = rng.choice([30, 40, 50])
                a = "An" if pay["gives"][0] in "aeiou" else "A"
                self.rules.append(f"{a} {pay['gives']} is at most {self.limit}, even if the {pay['field']} is higher.")
            elif kind == "guard" and self.code is None:
                instead = rng.choice(domain.named("flag", "note"))
                notes = instead in domain.named("note")
                value = rng.choice(_file()["refusals"] if notes else domain.tools[instead]["values"])
                self.guard = Guard(rng.choice(domain.named("status", "set")), some, instead, value)
                row = domain.tools[self.guard.tool]
                may = f"get another {row['field']}" if row["op"] == "set" else f"be {self._participle(self.guard.tool)}"
                otherwise = self._ask(instead, value, f"the {domain.entity}", first=True)
                self.rules.append(f"Only {which} can {may}; otherwise {otherwise}.")
            elif kind == "code" and self.guard is None:
                flag = domain.named("flag")[0]
                self.code = Code(flag, some, *rng.sample(domain.tools[flag]["values"], 2))
                rule = self._ask(flag, self.code.value, which, first=True)
                others = domain.tools[flag]["ask"][0].split("{it}")[1].format(value=self.code.other)
                self.rules.append(f"{rule[0].upper()}{rule[1:]}, all others{others}.")

    def _deciding(self) -> list[str]:
        """Tools whose use a record decides: by the guard, by the code rule, or because it holds the amount."""
        rules = [rule.tool for rule in (self.guard, self.code) if rule]
        return rules + self.domain.named("pay")

    def _plain(self) -> list[str]:
        """Tools that a request can settle without reading."""
        ruled = [rule.tool for rule in (self.guard, self.code) if rule]
        return [name for name in self.domain.named("status", *VALUE_OPS) if name not in ruled]

    # -- goals

    def _add(self, goal: Goal, first_person: bool) -> str:
        """Add a goal's records and calls; the clause that asks for it."""
        domain = self.domain
        person = self._person()
        targets = sorted(self._record(person) for _ in range(2 if goal.by == "both" else 1))
        if goal.by == "id":
            name = f"{domain.entity} {targets[0]}"
        else:
            self._call(domain.named("find")[0], {domain.customer: person})
            noun = domain.entity if goal.by == "customer" else domain.plural
            owner = "my" if first_person else f"{person}'s"
            name = f"{owner} {noun}" if goal.by == "customer" else f"both of {owner} {noun}"
        if goal.copies:
            return self._copy(goal, targets[0], name)
        tools = self._choose(goal)
        values = [self._value(tool, targets, decides=goal.reads and n == 0) for n, tool in enumerate(tools)]
        for target in targets:
            if goal.reads:
                self._call(domain.named("get")[0], {domain.entity: target})
            for n, (tool, value) in enumerate(zip(tools, values, strict=True)):
                self._write(*(self._decide(tool, value, target) if goal.reads and n == 0 else (tool, value)), target)
        pronoun = "them" if goal.by == "both" else "it"
        names = [name] + [pronoun] * (len(tools) - 1)
        return " and ".join(map(self._ask, tools, values, names))

    def _copy(self, goal: Goal, target: str, name: str) -> str:
        domain, rng = self.domain, self.rng
        tools = [tool for tool in domain.named("set") if tool in self._plain()]
        if not tools:
            raise Unfit
        tool = rng.choice(tools)
        changed = domain.tools[tool]["field"]
        person = self._person()
        others = [value for value in domain.fields[changed] if value != self.records[target][changed]]
        source = self._record(person, {changed: rng.choice(others)})
        other = f"{domain.entity} {source}"
        if goal.copies == "customer":
            self._call(domain.named("find")[0], {domain.customer: person})
            other = f"{person}'s {domain.entity}"
        self._call(domain.named("get")[0], {domain.entity: source})
        self._write(tool, self.records[source][changed], target)
        self.decided.append("copy")
        return self._ask(tool, f"the same {changed} as {other}", name)

    def _choose(self, goal: Goal) -> list[str]:
        """One tool per write, none touching what another touches."""
        first = self._deciding() if goal.reads else self._plain()
        if goal.by == "both":
            first = [tool for tool in first if self.domain.tools[tool]["op"] != "pay"]  # each record has its own amount
        chosen: list[str] = []
        for n in range(goal.writes):
            fits = [tool for tool in (self._plain() if n else first) if self._compatible(tool, chosen)]
            if not fits:
                raise Unfit
            chosen.append(self.rng.choice(fits))
        return chosen

    def _compatible(self, tool: str, chosen: list[str]) -> bool:
        ops = [self.domain.tools[name]["op"] for name in (tool, *chosen)]
        if {"status", "set"} <= set(ops) or ops.count("status") > 1:  # nobody moves a booking and cancels it
            return False
        return tool not in chosen and not (self.guard and self.guard.tool in chosen and tool == self.guard.instead)

    def _value(self, tool: str, targets: list[str], decides: bool) -> Any:
        """The value that the request names; None where it names none."""
        row = self.domain.tools[tool]
        if row["op"] == "set":
            current = [self.records[target][row["field"]] for target in targets]
            return self.rng.choice([value for value in self.domain.fields[row["field"]] if value not in current])
        if row["op"] == "status" or (decides and not (self.guard and tool == self.guard.tool)):
            return None
        if row["op"] == "pay":
            return self.rng.randrange(10, (self.limit or 60) + 1, 5)
        return self.rng.choice(row["values"])

    def _decide(self, tool: str, value: Any, target: str) -> tuple[str, Any]:
        """What the rules make of the request, now that the record has been read."""
        record = self.records[target]
        if self.guard and tool == self.guard.tool:
            self.decided.append("guard")
            return (tool, value) if record["status"] in self.guard.statuses else (self.guard.instead, self.guard.value)
        if self.code and tool == self.code.tool:
            self.decided.append("code")
            return tool, self.code.value if record["status"] in self.code.statuses else self.code.other
        amount = record[self.domain.tools[tool]["field"]]
        self.decided.append("limit" if self.limit else "amount")
        return tool, min(amount, self.limit or amount)

    # -- calls and records

    def _call(self, name: str, arguments: dict[str, Any]) -> None:
        self.calls.append((name, arguments))

    def _write(self, tool: str, value: Any, target: str) -> None:
        arguments = {self.domain.entity: target}
        if value is not None:
            arguments[self.domain.argument(tool)] = value
        self._call(tool, arguments)
        self.done.setdefault(target, []).append(self._participle(tool))

    def _record(self, person: str, fixed: dict[str, Any] | None = None) -> str:
        rng = self.rng
        key = ""
        while not key or key in self.records:
            key = "".join(str(rng.randint(1, 9)) if c == "0" else c for c in self.domain.id)
        values = {name: rng.choice(pool) for name, pool in self.domain.fields.items()} | (fixed or {})
        # Half of all records may be acted on, so that neither outcome of a guard is the better guess.
        statuses = self.domain.statuses
        if rule := self.guard or self.code:
            statuses = rule.statuses if rng.random() < 0.5 else [s for s in statuses if s not in rule.statuses]
        self.records[key] = {"id": key, self.domain.customer: person, **values, "status": rng.choice(statuses)}
        return key

    def _person(self) -> str:
        while True:
            person = f"{self.rng.choice(_file()['first'])} {self.rng.choice(_file()['last'])}"
            if person not in self.people:
                self.people.add(person)
                return person

    def _distract(self) -> None:
        """Fill up to 6 .. 10 records, one of them of somebody with a familiar first name, and shuffle."""
        rng = self.rng
        namesake = f"{rng.choice(sorted(self.people)).split()[0]} {rng.choice(_file()['last'])}"
        if namesake not in self.people:
            self.people.add(namesake)
            self._record(namesake)
        for _ in range(rng.randint(6, 10) - len(self.records)):
            self._record(self._person())
        keys = list(self.records)
        rng.shuffle(keys)
        self.records = {key: self.records[key] for key in keys}

    # -- words

    def _participle(self, tool: str) -> str:
        row = self.domain.tools[tool]
        return row.get("done") or row.get("to") or "noted"

    def _ask(self, tool: str, value: Any, it: str, first: bool = False) -> str:
        row = self.domain.tools[tool]
        forms = row.get("ask", NOTE)
        if value is None and row["op"] != "status":
            return (row.get("bare") or forms[0].replace("{value}", f"the {row['field']}")).format(it=it)
        return (forms[0] if first else self.rng.choice(forms)).format(it=it, value=value)

    def _words(self, clauses: list[str], first_person: bool) -> str:
        opening = self.rng.choice(PLAIN).format(clauses[0])
        words = [opening[0].upper() + opening[1:], *(self.rng.choice(SECOND).format(clause) for clause in clauses[1:])]
        if first_person:
            words.insert(0, self.rng.choice(HELLO).format(next(iter(self.people))))
        return " ".join(words)

    def data(self) -> dict[str, Any]:
        """All that a session needs, as JSON."""
        answer = "; ".join(f"{self.domain.entity} {key} is {' and '.join(done)}" for key, done in self.done.items())
        tools = list(self.domain.tools)
        self.rng.shuffle(tools)  # the place of a tool in the list says nothing
        return {
            "system": " ".join([f"You work at {self.domain.place}.", *self.rules]),
            "request": self.request,
            "records": self.records,
            "tools": tools,
            "calls": self.calls,
            "answer": answer[0].upper() + answer[1:] + ".",
        }

    def skills(self) -> tuple[str, ...]:
        """Operations of the expert's calls, then what decided a write."""
        return tuple(dict.fromkeys([self.domain.tools[name]["op"] for name, _ in self.calls] + self.decided))
