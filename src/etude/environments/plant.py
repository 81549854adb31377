"""A made-up factory whose people ask in abbreviations that its documents spell out, each department in its own way.

The corpus of Golden-Retriever's question in small (An et al. 2024, arXiv:2408.00798): every abbreviation means another
thing in each of three departments, a question names its department only by a place in it, and the records that answer
hold neither the abbreviation nor the place. Three kinds of questions:

plain    names the thing in full, so that the words of the question find its record (difficulty 1)
jargon   abbreviates it (2)
unknown  has an abbreviation that is in no dictionary; the answer says so (3)

By the method `golden` the agent tells the search the abbreviations and the department, and the search is for the
question with their meanings (see `tools/glossary.py`), or tells which are unknown. By `rag` the search is for the
question as it is, and by `bare` there is none. Terms are in one split alone. The reward is 1 for the answer's words.

Departures: abbreviations and department are found in one message, not by two prompts; the documents are records of one
line, to which no summaries are added.
"""

import functools
import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.tools.answers import marked, words
from etude.tools.corpus import Corpus
from etude.tools.documents import Document, Section
from etude.tools.glossary import Entry, Glossary
from etude.trajectory import Message, ToolCall

METHODS = ("golden", "rag", "bare")
KINDS = ("plain", "jargon", "unknown")
INSTRUCTION = "Answer the question. End with  Answer: and the answer, or  Answer: unknown  and the term."
SHOWN = 2  # passages of a search
TERMS, MEANINGS = 60, 3  # abbreviations, and departments in which each means something
UNKNOWN = 60
CONTEXTS = {  # name -> what it is about, and places that belong to it
    "etching": ("plasma and gases", ["plasma bay", "gas room"]),
    "coating": ("paint and ovens", ["paint shop", "oven row"]),
    "testing": ("probes and yields", ["probe lab", "yield hall"]),
    "packing": ("boxes and freight", ["box line", "freight yard"]),
}
FIELDS = {
    "owner": ["Adler", "Costa", "Diaz", "Ford", "Haas", "Klein"],
    "colour": ["red", "blue", "green", "white", "black", "gold"],
    "supplier": ["Riga", "Bari", "Cork", "Oslo", "Turin", "Lund"],
}
# what the letter of an abbreviation may stand for, and how such things are told apart
THINGS = {
    "B": ["Belt", "Bath", "Block"],
    "C": ["Cell", "Clamp", "Coil"],
    "D": ["Drum", "Dryer", "Duct"],
    "F": ["Filter", "Frame", "Feeder"],
    "L": ["Lamp", "Lid", "Lift"],
    "M": ["Motor", "Mixer", "Mask"],
    "P": ["Pump", "Plate", "Press"],
    "R": ["Rotor", "Rack", "Ring"],
    "S": ["Sensor", "Shaft", "Spool"],
    "T": ["Tank", "Table", "Tray"],
}
SORTS = ["Cold", "Deep", "Dual", "Fast", "Fine", "Flat", "Long", "Low", "Main", "Rear", "Soft", "Thin", "Twin", "Wide"]
CARE = ["checked daily", "checked weekly", "runs on air", "runs on oil"]


@part
@dataclass(eq=False)
class plant(Tasks):
    """Questions in the jargon of a factory.

    >>> [plant().tasks("test")[n].domain in CONTEXTS for n in range(2)]
    [True, True]
    """

    method: str = "golden"
    """`golden`, `rag` or `bare`."""
    dictionary: bool = True
    """Whether the dictionary has its entries; without any, `golden` finds what `rag` finds."""
    max_steps: int = 3
    """Messages after which the episode ends without an answer."""
    name = "plant"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PartError(f"environments/plant: no method {self.method!r}; {suggest(self.method, METHODS)}")

    def tasks(self, split: str) -> Sequence[Task]:
        """Questions of `train`, `dev` or `test` (70/10/20), by a hash of the term. Raises PartError for another."""
        if split not in (allowed := ("train", "dev", "test")):
            raise PartError(f"environments/plant has no split {split!r}; {suggest(split, allowed)}")
        return [
            Task(
                f"plant/{n}", self, split, data, data["context"], 1.0 + KINDS.index(data["kind"]), (data["kind"],),
                "plant.py",
            )
            for n, data in enumerate(_factory()[2])
            if data["split"] == split
        ]  # fmt: skip

    def open(self) -> "PlantSession":
        return PlantSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """Search where there is a search, and answer; all the same where the record was not found."""
        data = task.data
        if self.method == "bare":
            return [Message("assistant", f"Answer: {data['answer']}")]
        arguments = {"terms": ", ".join(data["terms"]), "context": data["context"]} if self.method == "golden" else {}
        call = ToolCall("search", arguments, "call_0")
        return [Message("assistant", "", (call,)), Message("assistant", f"Answer: {data['answer']}")]

    def secrets(self, task: Task) -> list[str]:
        """The record that answers, and what the abbreviation means; a colour alone may be part of any word."""
        data = task.data
        return [data["record"] or data["answer"], *([data["name"]] if data["kind"] == "jargon" else [])]


class PlantSession(ToolSession):
    """One question."""

    def __init__(self, world: plant):
        super().__init__(max_steps=world.max_steps)
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = {"golden": [GOLDEN], "rag": [RAG], "bare": []}[self.world.method]
        self.data = task.data
        return Observation((Message("system", INSTRUCTION), Message("user", task.data["question"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return respond(self.world, self.data["question"], **arguments)

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: nothing, for it has no answer yet."""
        return 0.0

    async def finish(self, answer: str) -> float:
        return float(words(marked(answer)) == words(self.data["answer"]))


def _search(description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": "search", "description": description, "parameters": parameters}


RAG = _search("find records for the question")
GOLDEN = _search(
    "find records for the question",
    terms={"type": "string", "description": "its abbreviations, separated by commas"},
    context={
        "enum": list(CONTEXTS),
        "description": "; ".join(f"{name}: {about}" for name, (about, _) in CONTEXTS.items()),
    },
)


def respond(world: plant, question: str, terms: str = "", context: str = "") -> str:
    """What a search says: the question, where it was augmented, and records; or which terms are unknown."""
    corpus, glossary, _ = _factory()
    glossary = glossary if world.dictionary else Glossary([], glossary.contexts)
    asked, unknown = glossary.augment(question, [term.strip() for term in terms.split(",") if term.strip()], context)
    if unknown:
        return f"Unknown: {', '.join(unknown)}. Check the spelling, or ask who keeps the dictionary."
    hits = [hit.text for hit in corpus.search(asked, SHOWN)]
    return "\n".join([*([asked] if asked != question else []), *hits]) or "Nothing found."


@functools.cache
def _factory() -> tuple[Corpus, Glossary, list[dict[str, Any]]]:
    """The index of the records, the dictionary, and all questions."""
    rng = random.Random("plant")
    terms = rng.sample([f"{letter}{number}" for letter in THINGS for number in range(10, 70)], TERMS + UNKNOWN)
    sorts = iter(rng.sample(list(itertools.permutations(SORTS, 2)), TERMS * MEANINGS))
    entries, records, asked = list[Entry](), list[str](), list[dict[str, Any]]()
    for term in terms[:TERMS]:
        contexts = rng.sample(list(CONTEXTS), MEANINGS)
        for context, thing in zip(contexts, rng.sample(THINGS[term[0]], MEANINGS), strict=True):
            name = " ".join((*next(sorts), thing))
            entries.append(Entry(term, context, name, rng.choice(CARE)))
            for field, values in FIELDS.items():
                answer = rng.choice(values)
                records.append(f"The {field} of the {name} is {answer}.")
                told = {"name": name, "record": records[-1], "answer": answer}
                asked.append(_ask(rng, term, context, "jargon", field, [term], **told))
                asked.append(_ask(rng, term, context, "plain", field, [], **told))
    for term in terms[TERMS:]:
        for field in FIELDS:
            told = {"name": "", "record": "", "answer": f"unknown {term}"}
            asked.append(_ask(rng, term, rng.choice(list(CONTEXTS)), "unknown", field, [term], **told))
    rng.shuffle(records)
    rng.shuffle(asked)
    documents = [Document(f"r{n}", "record", (Section(("record",), text),)) for n, text in enumerate(records)]
    glossary = Glossary(entries, {name: about for name, (about, _) in CONTEXTS.items()})
    return Corpus.ensure(documents), glossary, asked


def _ask(
    rng: random.Random, term: str, context: str, kind: str, field: str, terms: list[str], **told: str
) -> dict[str, Any]:
    place = int(hashlib.sha256(term.encode()).hexdigest(), 16) % 10
    thing = told["name"] if kind == "plain" else term
    return {
        "kind": kind, "context": context, "terms": terms, **told,
        "split": "train" if place < 7 else "dev" if place == 7 else "test",
        "question": f"From the {rng.choice(CONTEXTS[context][1])}: what is the {field} of the {thing}?",
    }  # fmt: skip
