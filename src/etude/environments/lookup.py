"""Questions with a search tool: small made-up encyclopedias, some questions of which need no looking up.

Every task has its own few articles about invented towns and people, so that nothing can be known by heart. `search`
gives the article that fits a query best by BM25 (Robertson & Zaragoza 2009, doi.org/10.1561/1500000019). The reward is
1 where the words after the last `Answer:` are the answer.

The expert works as FireAct (Chen et al. 2023, arXiv:2310.05915) prompts its teacher, by one of three methods, all in
one format, thought and then call or answer: `react` searches for every hop; `cot` answers a question that holds its own
answer from one thought; `reflexion` begins with a poor query and, where that leads nowhere, reflects in a thought.

The splits `masked-1` to `masked-3` are no questions but passages with so many masks to fill, for Retrieval-Augmented
Mask Prediction as in MaskSearch (Wu et al. 2025): the expert searches for each, by `react`.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession, invented_names
from etude.protocols import Observation, Task
from etude.tools import ranking
from etude.trajectory import Message, ToolCall

METHODS = ("react", "cot", "reflexion")
FAMILIES = ("given", "one hop", "two hops")
NOTHING = "Nothing found."
MASK = "[mask]"
SEARCH = {
    "name": "search",
    "description": "find an article",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
INSTRUCTION = "Answer the question; search where you need to. End with  Answer: and the answer."
# what a place has, who belongs to it, and the values; the last world is never seen in training
WORLDS = [
    ("town", "lives in", {"flag": ["red", "blue", "green", "white"], "bird": ["owl", "crow", "swan", "duck"]}),
    ("club", "plays for", {"coach": ["Adler", "Costa", "Diaz", "Ford"], "colour": ["red", "blue", "black", "gold"]}),
    ("ship", "sails on", {"cargo": ["salt", "rice", "wood", "tea"], "port": ["Riga", "Bari", "Cork", "Oslo"]}),
]
PEOPLE = [
    "Ana",
    "Ben",
    "Carla",
    "Dan",
    "Eva",
    "Finn",
    "Gina",
    "Hugo",
    "Ida",
    "Jan",
    "Leo",
    "Mia",
    "Nina",
    "Omar",
    "Rosa",
]


@part
@dataclass(eq=False)
class lookup(Tasks):
    """Made-up facts, one tool, answers judged by their words.

    >>> lookup().tasks("test")[0].id
    'lookup/test/0'
    """

    methods: list[str] | str = "react"
    """How the expert works: of `react`, `cot`, `reflexion`; drawn evenly among those that fit the question."""
    noise: float = 0.0
    """Share of the tasks outside `train` in which the first search finds nothing, whatever was asked."""
    shots: int = 0
    """Worked examples in the system message."""
    size: int = 2000
    """Tasks in the split `train`; `dev`, `test` and `domains` (a kind of place never seen) have a tenth."""
    max_steps: int = 6
    """Messages after which the episode ends without an answer."""
    name = "lookup"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        self.methods = [self.methods] if isinstance(self.methods, str) else list(self.methods)
        for method in self.methods:
            if method not in METHODS:
                raise PartError(f"environments/lookup: no method {method!r}; {suggest(method, METHODS)}")
        if not self.methods:
            raise PartError(f"environments/lookup: methods is empty; name some of {', '.join(METHODS)}")
        if not 0 <= self.noise <= 1:
            raise PartError(f"environments/lookup: noise is {self.noise!r}; give a share, 0 to 1")

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test`, `domains` or `masked-1` to `masked-3`; only `size` and `noise` change them.

        Raises PartError for another split.
        """
        sizes = {"train": self.size, "dev": self.size // 10, "test": self.size // 10, "domains": self.size // 10}
        sizes |= {f"masked-{masks}": self.size for masks in (1, 2, 3)}
        if split not in sizes:
            raise PartError(f"environments/lookup has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        rng = random.Random(f"{split}/{i}")
        if split.startswith("masked-"):
            data = _mask(rng, WORLDS[:-1], int(split[-1]))
            identity = f"lookup/{split}/{i}"
            return Task(identity, self, split, data, data["world"], float(split[-1]), ("masked",), "lookup.py")
        mixed = f"@{self.noise:g}" if self.noise and split != "train" else ""  # other tasks, though with the same words
        identity = f"lookup{mixed}/{split}/{i}"
        family = FAMILIES[i % len(FAMILIES)]
        noisy = split != "train" and rng.random() < self.noise
        data = _draw(rng, WORLDS[-1:] if split == "domains" else WORLDS[:-1], family, noisy)
        skills = (family, *(["noise"] if noisy else []))
        return Task(identity, self, split, data, data["world"], float(FAMILIES.index(family)), skills, "lookup.py")

    def open(self) -> "LookupSession":
        return LookupSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The expert by one of its methods; a `cot` cannot answer what it was not told, and gives way to another."""
        fits = [m for m in self.methods if m != "cot" or task.data["given"]] or ["react"]
        digest = hashlib.sha256(f"{task.id} {seed}".encode()).digest()
        return script(task.data, fits[digest[0] % len(fits)])

    def secrets(self, task: Task) -> list[str]:
        """The article that answers; the answer's word alone is in many."""
        return [] if task.data["given"] else [task.data["thoughts"][-1]]


def script(data: dict[str, Any], method: str) -> list[Message]:
    """The messages of one method on one question."""
    queries, thoughts = list(data["queries"]), list(data["thoughts"])
    if method == "cot":
        queries, thoughts = [], thoughts[-1:]
    failing = data["noisy"] and bool(queries)
    if method == "reflexion" and queries:
        queries.insert(0, data["poor"])
        thoughts.insert(1, f"That did not help. Reflection: I should search for {queries[1]}.")
        failing = False  # the first search is the poor one, whatever it finds
    if failing:
        queries.insert(0, queries[0])
        thoughts.insert(1, "Nothing. I should search again.")
    acts = [
        Message("assistant", thought, (ToolCall("search", {"query": query}, f"call_{n}"),))
        for n, (thought, query) in enumerate(zip(thoughts, queries, strict=False), 1)
    ]
    return [*acts, Message("assistant", f"{thoughts[-1]} Answer: {data['answer']}")]


def _draw(rng: random.Random, worlds: list[Any], family: str, noisy: bool) -> dict[str, Any]:
    """One encyclopedia and one question about it."""
    world, belongs, fields = rng.choice(worlds)
    places = invented_names(rng, 3)
    people = rng.sample(PEOPLE, 3)
    facts = {place: {field: rng.choice(values) for field, values in fields.items()} for place in places}
    place, person = places[0], people[0]
    field = rng.choice(list(fields))
    answer = facts[place][field]
    articles = [f"The {f} of {p} is {value}." for p, row in facts.items() for f, value in row.items()]
    articles += [f"{who} {belongs} {where}." for who, where in zip(people, places, strict=True)]
    rng.shuffle(articles)
    last = f"The {field} of {place} is {answer}."
    if family == "given":
        told = [f"The {field} of {p} is {facts[p][field]}." for p in places[:2]]
        rng.shuffle(told)
        question = f"{' '.join(told)} What is the {field} of {place}?"
    else:
        target = place if family == "one hop" else f"the {world} that {person} {belongs}"
        question = f"What is the {field} of {target}?"
    queries = [f"{field} of {place}"]
    thoughts = [f"I need the {field} of {place}.", last]
    if family == "two hops":
        queries.insert(0, f"{person} {belongs}")
        thoughts = [f"I need the {world} that {person} {belongs}.", f"{person} {belongs} {place}.", last]
    return {
        "world": world, "question": question, "articles": articles, "answer": answer, "given": family == "given",
        "queries": queries, "thoughts": thoughts, "poor": f"the {world}", "noisy": noisy,
    }  # fmt: skip


def _mask(rng: random.Random, worlds: list[Any], masks: int) -> dict[str, Any]:
    """One encyclopedia and a passage of it, three facts of which so many lack their value."""
    world, _, fields = rng.choice(worlds)
    places = invented_names(rng, 3)
    facts = {(place, field): rng.choice(values) for place in places for field, values in fields.items()}
    articles = [f"The {field} of {place} is {value}." for (place, field), value in facts.items()]
    told = rng.sample(sorted(facts), 3)
    hidden = sorted(rng.sample(range(3), masks))
    sentences = [f"The {f} of {p} is {MASK if n in hidden else facts[p, f]}." for n, (p, f) in enumerate(told)]
    found = [f"The {told[n][1]} of {told[n][0]} is {facts[told[n]]}." for n in hidden]
    needs = [f"I need the {told[n][1]} of {told[n][0]}." for n in hidden]
    thoughts = [needs[0], *(f"{fact} {need}" for fact, need in zip(found, needs[1:], strict=False)), found[-1]]
    rng.shuffle(articles)
    return {
        "world": world, "question": f"Fill in: {' '.join(sentences)}", "articles": articles, "given": False,
        "answer": ", ".join(facts[told[n]] for n in hidden),
        "passage": " ".join(f"The {f} of {p} is {facts[p, f]}." for p, f in told),
        "queries": [f"{told[n][1]} of {told[n][0]}" for n in hidden], "thoughts": thoughts,
        "poor": f"the {world}", "noisy": False,
    }  # fmt: skip


def bm25(query: str, articles: list[str]) -> list[float]:
    """One score per article, 0 where no word is shared."""
    return ranking.bm25(_words(query), [_words(article) for article in articles])


def best(query: str, articles: list[str]) -> str:
    """The article that fits best, '' where none shares a word with the query."""
    scores = bm25(query, articles)
    return articles[scores.index(max(scores))] if max(scores) > 0 else ""


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in ("the", "of", "is", "in", "for", "on")]


class LookupSession(ToolSession):
    """One episode: the articles, and how often was searched."""

    def __init__(self, world: lookup):
        super().__init__(max_steps=world.max_steps)
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = [SEARCH]
        self.data = task.data
        self.searches = 0
        system = "\n".join([INSTRUCTION, *map(_shot, range(self.world.shots))])
        return Observation((Message("system", system), Message("user", task.data["question"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.searches += 1
        if self.data["noisy"] and self.searches == 1:
            return NOTHING
        return best(arguments["query"], self.data["articles"]) or NOTHING

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: nothing, for it has no answer yet."""
        return 0.0

    async def finish(self, answer: str) -> float:
        _, marked, said = answer.rpartition("Answer:")
        return float(bool(marked) and _words(said) == _words(self.data["answer"]))

    def save(self) -> int:
        return self.searches

    def load(self, state: int) -> None:
        self.searches = state


def _shot(i: int) -> str:
    """A worked example, of another family each time, from no task's encyclopedia."""
    data = _draw(random.Random(f"shot {i}"), WORLDS[:-1], FAMILIES[(i + 1) % len(FAMILIES)], noisy=False)
    lines = [f"Question: {data['question']}"]
    for message in script(data, "cot" if data["given"] else "react"):
        lines.append(message.content)
        for call in message.tool_calls:
            lines += [f"search {call.arguments['query']}", best(call.arguments["query"], data["articles"]) or NOTHING]
    return "\n".join(lines)
