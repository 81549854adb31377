"""A policy document of set complexity, customers to be served by it, and texts to learn it by heart from.

CC-Gen and category-aware continued pretraining, Liu et al. 2025, "Analyzing and Internalizing Complex Policy Documents
for LLM Agents", arXiv:2510.11588. One document is written for each setting of four dials: `databases` (environment),
`requests` (task), `depth` (workflow) and `query` (the customer's words). `specifications` reads it back into atomic
statements: factual (which desk), behavioural (manners), conditional (one for each way through a rule) and complex
(those of two conditions or more).

The splits `train`, `dev` and `test` are customers. The agent looks a record up, settles the request as the rules say at
the desk that the facts say, and answers as the manners say; all three must be right. It is shown the document, or only
its name (`document: false`). The domains of a task: `plain`; `override`, where a changed rule is told with the name and
holds for this customer; `referral`, a question about the rules without a customer.

The split `corpus` is text about the document, made from its specifications, each task's domain their category:
paraphrases, questions and answers for facts, demonstrations for manners, scenarios that walk a rule for conditions, the
more the longer the way. Its expert says the text.

Departures: templates instead of a model write the document and the texts; a rule is a binary tree over attributes of
two values; a desk is the one argument of a request.
"""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import FormatError, PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError, tool
from etude.protocols import Observation, Task
from etude.trajectory import Message, ToolCall

REQUESTS: tuple[str, ...] = ("refund", "exchange", "upgrade", "repair", "transfer", "discount")
OUTCOMES = ("approve", "reject", "hold", "refer", "waive", "credit")
ATTRIBUTES = {
    "tier": ("gold", "basic"), "age": ("new", "old"), "size": ("small", "large"), "place": ("north", "south"),
}  # fmt: skip
DATABASES = ("orders", "people", "stock")
MANNERS = ("Good day.", "Stay well.", "Many thanks.", "At your service.")
INDENT = "  "
SHARES = ("plain", "plain", "plain", "plain", "override", "referral")
Record = dict[str, str]


# -- the document ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A node of a decision tree: where the attribute has the value, `then` holds, otherwise `other`."""

    attribute: str
    value: str
    then: "Rule | str"
    other: "Rule | str"


def grow(rng: random.Random, depth: int, free: Sequence[str]) -> Rule | str:
    """A rule of this depth, whose last two outcomes always differ."""
    attribute = rng.choice(free)
    rest = [name for name in free if name != attribute]
    value = rng.choice(ATTRIBUTES[attribute])
    then, other = rng.sample(OUTCOMES, 2) if depth == 1 else [grow(rng, depth - 1, rest) for _ in range(2)]
    return Rule(attribute, value, then, other)


def decide(rule: Rule | str, record: Record) -> tuple[list[str], str]:
    """The attributes that the rule asks about for this record, and its outcome."""
    asked: list[str] = []
    while isinstance(rule, Rule):
        asked.append(rule.attribute)
        rule = rule.then if record[rule.attribute] == rule.value else rule.other
    return asked, rule


def write(name: str, rules: dict[str, Rule | str], desks: dict[str, str], manner: str) -> str:
    """The document."""

    def lines(rule: Rule | str, indent: str) -> list[str]:
        found = []
        if isinstance(rule, Rule):
            for head, below in ((f"If the {rule.attribute} is {rule.value}:", rule.then), ("Otherwise:", rule.other)):
                found += [f"{indent}{head} {below}."] if isinstance(below, str) else [f"{indent}{head}"]
                found += lines(below, indent + INDENT)
        return found

    facts = [f"The desk for {_one(request)} is {desk}." for request, desk in desks.items()]
    told = [line for request, rule in rules.items() for line in (f"Rule for {_one(request)}:", *lines(rule, INDENT))]
    return "\n".join([f"Policy {name}.", *facts, f"End every answer with: {manner}", *told])


def _one(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


# -- its specifications ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Specification:
    """One atomic statement of a document."""

    category: str
    """`factual`, `behavioural`, `conditional` or `complex`."""
    request: str = ""
    conditions: tuple[tuple[str, str], ...] = ()
    """Attribute and the value that it must have, in the order of the rule."""
    says: str = ""
    """The desk, the words, or the outcome."""


def specifications(document: str) -> list[Specification]:
    """What a document says, read from its text alone. Raises FormatError for a line that is no statement."""
    found: list[Specification] = []
    request, path = "", list[tuple[str, str]]()
    for n, line in enumerate(document.splitlines()[1:], 2):
        depth = (len(line) - len(line.lstrip())) // len(INDENT)
        text = line.strip()
        if match := re.fullmatch(r"The desk for an? (\w+) is (\w+)\.", text):
            found.append(Specification("factual", match[1], says=match[2]))
        elif match := re.fullmatch(r"End every answer with: (.+)", text):
            found.append(Specification("behavioural", says=match[1]))
        elif match := re.fullmatch(r"Rule for an? (\w+):", text):
            request, path = match[1], []
        elif match := re.fullmatch(r"(?:If the (\w+) is (\w+)|Otherwise):(?: (\w+)\.)?", text):
            condition = (match[1], match[2]) if match[1] else _other(path[depth - 1])
            path = [*path[: depth - 1], condition]
            if match[3]:
                category = "conditional" if len(path) == 1 else "complex"
                found.append(Specification(category, request, tuple(path), match[3]))
        else:
            raise FormatError(f"line {n} of the document is no statement: {line!r}")
    return found


def _other(condition: tuple[str, str]) -> tuple[str, str]:
    """The same attribute with its other value."""
    attribute, value = condition
    return attribute, next(each for each in ATTRIBUTES[attribute] if each != value)


def interpret(found: Sequence[Specification], request: str, record: Record) -> tuple[Specification, str]:
    """The statement that decides a request, and the desk."""
    (decides,) = (s for s in found if s.conditions and s.request == request and set(s.conditions) <= record.items())
    (desk,) = (s.says for s in found if s.category == "factual" and s.request == request)
    return decides, desk


def reasoning(request: str, conditions: Sequence[tuple[str, str]], outcome: str) -> str:
    """The way through a rule in words.

    >>> reasoning("refund", [("tier", "gold"), ("age", "new")], "hold")
    'Refund. Tier gold. Age new. So hold.'
    """
    said = [request, *(f"{attribute} {value}" for attribute, value in conditions)]
    return " ".join(f"{each.capitalize()}." for each in said) + f" So {outcome}."


def corpus(found: Sequence[Specification]) -> list[tuple[Specification, str]]:
    """Texts from which each specification can be learnt."""
    (manner,) = (s.says for s in found if s.category == "behavioural")
    made: list[tuple[Specification, str]] = []
    for one in found:
        rng, a = random.Random(repr(one)), _one(one.request) if one.request else ""
        if one.category == "factual":
            texts = [
                f"The desk for {a} is {one.says}.",
                f"{a.capitalize()} goes to desk {one.says}.",
                f"At desk {one.says} {a} is settled.",
                f"Which desk is for {a}? Desk {one.says}.",
            ]
        elif one.category == "behavioural":
            texts = [f"{rng.choice(OUTCOMES).capitalize()}. {manner}" for _ in range(8)]
        else:
            told = [_record(rng) | dict(one.conditions) for _ in range(4 * len(one.conditions))]
            way = reasoning(one.request, one.conditions, one.says)
            texts = [f"{a.capitalize()}, {_shown(record)}. {way}" for record in told]
        made += [(one, text) for text in texts]
    return made


def _record(rng: random.Random) -> Record:
    return {attribute: rng.choice(values) for attribute, values in ATTRIBUTES.items()}


def _shown(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"))


# -- tasks -----------------------------------------------------------------------------------------------------------


@part
@dataclass(eq=False)
class ccgen(Tasks):
    """One policy of set complexity: customers, and texts about it.

    >>> ccgen().tasks("test")[0].id
    'ccgen/1-6-3-1/test/0'
    """

    databases: int = 1
    """Databases that a customer's record is spread over, 1 to 3."""
    requests: int = 6
    """Kinds of requests, 1 to 6, each with its rule and its desk."""
    depth: int = 3
    """Conditions on the way through the deepest rules, 1 to 4; those of the others are fewer, in turn."""
    query: int = 1
    """1: customers say what they want; 2: they say more than that."""
    document: bool = False
    """Whether the agent is shown the document, or only its name."""
    train: int = 2000
    """Tasks in the split `train`; `dev` and `test` have a tenth."""
    name = "ccgen"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        most = {"databases": 3, "requests": len(REQUESTS), "depth": len(ATTRIBUTES), "query": 2}
        for dial, limit in most.items():
            if not 1 <= getattr(self, dial) <= limit:
                raise PartError(f"environments/ccgen: {dial} is {getattr(self, dial)!r}; give 1 to {limit}")
        self.prefix = "-".join(str(getattr(self, dial)) for dial in most)
        rng = random.Random(self.prefix)
        kinds = REQUESTS[: self.requests]
        self.rules = {kind: grow(rng, 1 + n % self.depth, list(ATTRIBUTES)) for n, kind in enumerate(kinds)}
        codes = rng.sample([f"{letter}{digit}" for letter in "HKMPRT" for digit in range(2, 9)], len(kinds))
        self.desks = dict(zip(kinds, codes, strict=True))
        self.manner = rng.choice(MANNERS)
        self.text = write(self.prefix, self.rules, self.desks, self.manner)
        self.corpus = corpus(specifications(self.text))
        self.holds = {attribute: DATABASES[n % self.databases] for n, attribute in enumerate(ATTRIBUTES)}

    def tasks(self, split: str) -> LazyTasks:
        """Customers of `train`, `dev` or `test`, or the texts of `corpus`. Raises PartError for another split."""
        few = self.train // 10
        sizes = {"train": self.train, "dev": few, "test": few, "corpus": len(self.corpus)}
        if split not in sizes:
            raise PartError(f"environments/ccgen has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._text(i) if split == "corpus" else self._customer(split, i), sizes[split])

    def _text(self, i: int) -> Task:
        one, text = self.corpus[i]
        data = {"kind": "text", "prompt": "Text.", "says": text}
        place = f"ccgen/{self.prefix}/corpus/{i}"
        return Task(place, self, "corpus", data, one.category, float(len(one.conditions)), ("reading",), "ccgen.py")

    def _customer(self, split: str, i: int) -> Task:
        identity = f"ccgen/{self.prefix}/{split}/{i}"
        rng = random.Random(identity)
        while True:
            kind, request, record = rng.choice(SHARES), rng.choice(list(self.rules)), _record(rng)
            asked, outcome = decide(self.rules[request], record)
            way = [(attribute, record[attribute]) for attribute in asked]
            data = {
                "kind": kind, "request": request, "order": rng.randint(1000, 9999), "record": record,
                "way": way, "outcome": outcome, "desk": self.desks[request], "told": "",
            }  # fmt: skip
            if kind == "override":
                data["outcome"] = rng.choice([other for other in OUTCOMES if other != outcome])
                data["told"] = reasoning(request, way, data["outcome"])
            data["prompt"] = self._words(rng, data)
            if _home(data) == split:
                return Task(identity, self, split, data, kind, float(len(way)), (request,), "ccgen.py")

    def _words(self, rng: random.Random, data: dict[str, Any]) -> str:
        a, order = _one(data["request"]), data["order"]
        if data["kind"] == "referral":
            return f"What comes of {a}, {_shown(data['record'])}?"
        plain = [f"I want {a} for order {order}.", f"Order {order}: {a}, please.", f"Can I have {a} for order {order}?"]
        if self.query == 1:
            return rng.choice(plain)
        others = [request for request in self.rules if request != data["request"]]
        more = [f"I do not want {_one(other)}." for other in others] or ["I am in no hurry."]
        opening = rng.choice(["Hello, I called before.", f"I have waited {rng.randint(2, 9)} days."])
        return f"{opening} {rng.choice(more)} {rng.choice(plain)}"

    def open(self) -> "CCGenSession":
        return CCGenSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """A text as it is; or: look up what the rule asks, reason, settle, answer. The seed changes nothing."""
        data = task.data
        if data["kind"] == "text":
            return [Message("assistant", data["says"])]
        way = reasoning(data["request"], data["way"], data["outcome"])
        if data["kind"] == "referral":
            return [Message("assistant", f"{way} {self.manner}")]
        places = list(dict.fromkeys(self.holds[attribute] for attribute, _ in data["way"]))
        calls = [ToolCall("look", {"database": place}, f"call_{n}") for n, place in enumerate(places)]
        arguments = {"outcome": data["outcome"], "desk": data["desk"]}
        return [
            *(Message("assistant", "", (call,)) for call in calls),
            Message("assistant", way, (ToolCall("settle", arguments, "settle"),)),
            Message("assistant", f"{data['outcome'].capitalize()}. {self.manner}"),
        ]

    def secrets(self, task: Task) -> list[str]:
        """The desk, or the text; what is shown the document is shown the desks."""
        if task.data["kind"] == "text":
            return [task.data["says"]]
        return [] if self.document else [f" {task.data['desk']}."]


def _home(data: dict[str, Any]) -> str:
    """A customer belongs to the split that their words and record fall into, so no two splits hold the same one."""
    told = json.dumps([data["prompt"], data["told"], data["record"]])
    place = int(hashlib.sha256(told.encode()).hexdigest(), 16) % 10
    return "train" if place < 8 else "dev" if place == 8 else "test"


# -- episodes --------------------------------------------------------------------------------------------------------


class CCGenSession(ToolSession):
    """One customer, one question, or one text."""

    def __init__(self, world: ccgen):
        super().__init__(max_steps=8)
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.data, self.settled = task.data, list[list[str]]()
        serves = task.data["kind"] in ("plain", "override")
        self.tools = [CCGenSession.look.schema, CCGenSession.settle.schema] if serves else []  # type: ignore[attr-defined]
        shown = (
            self.world.text if self.world.document and task.data["kind"] != "text" else f"Policy {self.world.prefix}."
        )
        told = f"{shown} But now: {task.data['told']}" if task.data.get("told") else shown
        return Observation((Message("system", told), Message("user", task.data["prompt"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        return getattr(self, name)(**arguments)

    @tool
    def look(self, database: str) -> Record:
        """what a database has of the order"""
        held = self.world.holds
        if database not in held.values():
            raise ToolError(f"no database {database!r}; {suggest(database, set(held.values()))}")
        return {name: value for name, value in self.data["record"].items() if held[name] == database}

    @tool
    def settle(self, outcome: str, desk: str) -> str:
        """settle the request at a desk"""
        self.settled.append([outcome, desk])
        return "ok"

    async def finish(self, answer: str) -> float:
        if self.data["kind"] == "text":
            return float(answer.strip() == self.data["says"])
        if not answer.strip().endswith(self.world.manner):
            return 0.0
        if self.data["kind"] == "referral":
            said = re.findall(r"\w+", answer.removesuffix(self.world.manner).lower())
            return float([word for word in said if word in OUTCOMES] == [self.data["outcome"]])
        return float(self.settled == [[self.data["outcome"], self.data["desk"]]])

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: nothing, for there is no answer yet."""
        return 0.0

    def save(self) -> Any:
        return [list(each) for each in self.settled]

    def load(self, state: Any) -> None:
        self.settled = [list(each) for each in state]
