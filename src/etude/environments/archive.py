"""A made-up archive in which the record that is nearest in meaning is often the wrong one.

The corpus of Interact-RAG's question in small: what can an agent do that queries by meaning alone cannot? All tasks
share one archive of one-line records, with latent semantic indexing for meaning. Three kinds of questions:

plain   a field of a place, which a query by meaning often finds (difficulty 1)
item    where a rare number lies, among numbers that differ from it by a digit, which only exact words tell apart: a
        word that is in one record alone has no meaning that the index could learn (2)
which   all places that have a value, so that all records that name it must be found, and more of them shown (3)

The reward is the F1 of the words of the answer. The expert uses the primitive that fits, or, with the tools `query`,
the one search there is, and answers all the same what it cannot have found.
"""

import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import Tasks, invented_names
from etude.environments.searching import SETS, SearchSession
from etude.protocols import Observation, Task
from etude.tools.answers import marked, overlap, words
from etude.tools.corpus import Corpus
from etude.tools.documents import Document, Section
from etude.trajectory import Message, ToolCall

INSTRUCTION = "Answer the question; search where you need to. End with  Answer: and the answer."
KINDS = ("plain", "item", "which")
PLACES, ITEMS, SHARED = 48, 144, 3  # and how many places have a value of the fields that `which` asks about
SHOWN = 2  # passages that a search gives at first
FIELDS = {
    "flag": ["red", "blue", "green", "white", "black", "gold"],
    "bird": ["owl", "crow", "swan", "duck", "hawk", "dove"],
}


@part
@dataclass(eq=False)
class archive(Tasks):
    """Questions about an archive that must be worked with, and not only asked.

    >>> archive().tasks("test")[0].skills
    ('plain',)
    """

    tools: str = "interact"
    """`interact`, the primitives of Interact-RAG, or `query`, the search by meaning alone."""
    max_steps: int = 3
    """Messages after which the episode ends without an answer."""
    name = "archive"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.tools not in (allowed := ("interact", "query")):
            raise PartError(f"environments/archive: no tools {self.tools!r}; {suggest(self.tools, allowed)}")

    def tasks(self, split: str) -> Sequence[Task]:
        """Questions of `train`, `dev` or `test` (70/10/20), by a hash of the question. Raises PartError for another."""
        if split not in (allowed := ("train", "dev", "test")):
            raise PartError(f"environments/archive has no split {split!r}; {suggest(split, allowed)}")
        return [
            Task(
                f"archive/{n}", self, split, data, data["kind"], 1.0 + KINDS.index(data["kind"]), (data["kind"],),
                "archive.py",
            )
            for n, data in enumerate(_archive()[1])
            if data["split"] == split
        ]  # fmt: skip

    def open(self) -> "ArchiveSession":
        return ArchiveSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """One message that searches and one that answers."""
        data = task.data
        if self.tools == "query" or data["kind"] == "plain":
            calls = [ToolCall("semantic_search", {"query": data["query"]}, "call_0")]
        elif data["kind"] == "item":
            calls = [ToolCall("exact_search", {"keywords": data["query"]}, "call_0")]
        else:
            wider = ToolCall("adjust_scale", {"k": SHARED + 2}, "call_0")
            calls = [wider, ToolCall("entity_match", {"entity": data["query"]}, "call_1")]
        return [
            Message("assistant", "", tuple(calls)),
            Message("assistant", f"{data['record']} Answer: {data['answer']}"),
        ]

    def secrets(self, task: Task) -> list[str]:
        """The record that tells the answer, which alone is a word like any other: `red` is in many."""
        return [task.data["record"]]


class ArchiveSession(SearchSession):
    """One question."""

    def __init__(self, world: archive):
        names = [name for name in SETS[world.tools] if name not in ("open", "find")]  # a search shows all of a record
        super().__init__(_archive()[0], tools=names, k=SHOWN, max_steps=world.max_steps)

    async def begin(self, task: Task, seed: int) -> Observation:
        self.prepare()
        self.answer = task.data["answer"]
        return Observation((Message("system", INSTRUCTION), Message("user", task.data["question"])))

    async def finish(self, answer: str) -> float:
        return overlap(words(marked(answer)), words(self.answer))


@functools.cache
def _archive() -> tuple[Corpus, list[dict[str, Any]]]:
    """The index of the records, and all questions about them."""
    rng = random.Random("archive")
    places = invented_names(rng, PLACES)
    others = invented_names(rng, 2 * PLACES // SHARED, without=places)
    guilds, patrons = others[: len(others) // 2], others[len(others) // 2 :]
    values = {field: [rng.choice(some) for _ in places] for field, some in FIELDS.items()}
    values |= {"guild": guilds * SHARED, "patron": rng.sample(patrons * SHARED, PLACES)}
    records, asked = list[str](), list[dict[str, Any]]()
    for field, some in values.items():
        for place, value in zip(places, some, strict=True):
            records.append(f"The {field} of {place} is {value}.")
            told = {"record": records[-1], "answer": value, "query": f"{field} of {place}"}
            asked.append({"kind": "plain", "question": f"What is the {field} of {place}?", **told})
    numbers = [f"{family}{last}" for family in rng.sample(range(100, 1000), ITEMS // 9) for last in range(1, 10)]
    for number, row in zip(numbers, rng.sample(range(100, 1000), ITEMS), strict=True):
        records.append(f"Item {number} is in row {row}.")
        told = {"record": records[-1], "answer": str(row), "query": f"item {number}"}
        asked.append({"kind": "item", "question": f"Where is item {number}?", **told})
    for field, some in (("guild", guilds), ("patron", patrons)):
        for value in some:
            holders = [place for place, its in zip(places, values[field], strict=True) if its == value]
            record = f"The {field} of {' and '.join(holders)} is {value}."
            told = {"record": record, "answer": ", ".join(holders), "query": value}
            asked.append({"kind": "which", "question": f"Which places have the {field} {value}?", **told})
    for data in asked:
        place = int(hashlib.sha256(data["question"].encode()).hexdigest(), 16) % 10
        data["split"] = "train" if place < 7 else "dev" if place == 7 else "test"
    documents = [Document(f"r{n}", "record", (Section(("record",), text),)) for n, text in enumerate(records)]
    return Corpus.ensure(documents, encoder="latent"), asked
