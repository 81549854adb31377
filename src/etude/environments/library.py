"""Questions about any folder of documents, made from their own sentences and headings, so that each has one answer.

document  a sentence, word for word: which document says it? (difficulty 1)
section   four rare words that stand together in one section: under which heading? (2)
word      a sentence of a named section with one word left out: which? (3)

What a question says is checked: the sentence stands in one section alone, the words stand together in no other, the
heading is no other section's, nothing else fits the gap, and the question does not say its answer. Sections fall into
train, dev and test (80/10/10) by a hash of their place. The reward is 1 for the answer, by its words.

Without a folder the documents are the docstrings of some fifty modules of the standard library, as Python's running
version has them (PSF License), so task ids differ between versions.
"""

import ast
import functools
import hashlib
import importlib.util
import platform
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.core.errors import FormatError, PartError, suggest
from etude.core.parts import part
from etude.environments.base import Tasks
from etude.environments.searching import SETS, SearchSession, ToolSet
from etude.protocols import Observation, Task
from etude.tools.answers import marked, words
from etude.tools.corpus import Corpus
from etude.tools.documents import Document, Section, read_folder
from etude.tools.embed import ENCODERS
from etude.trajectory import Message, ToolCall

INSTRUCTION = (
    "Answer the question from the documents: search, open what you find, or find a text in it. End with a message that "
    "says Answer: and the answer alone."
)
FIRST = {  # how the expert searches, by the tools it has
    "search": ("search", "query"),
    "interact": ("exact_search", "keywords"),
    "query": ("semantic_search", "query"),
}
KINDS = ("document", "section", "word")
MODULES = (
    "abc", "argparse", "ast", "asyncio.events", "bisect", "calendar", "codecs", "collections", "configparser",
    "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions",
    "functools", "gettext", "glob", "gzip", "heapq", "inspect", "ipaddress", "locale", "logging", "mailbox",
    "numbers", "optparse", "os", "pathlib", "pickle", "pprint", "queue", "random", "shelve", "shlex", "shutil",
    "smtplib", "socket", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "tokenize", "traceback", "typing", "unittest.mock", "uuid", "weakref", "zipfile",
)  # fmt: skip


@part
@dataclass(eq=False)
class library(Tasks):
    """Questions over a folder of .txt, .md, .html and .rst files, or over the standard library's docstrings.

    Raises PartError for settings that do not fit, FormatError for a folder of which no question can be made.

    >>> library().tasks("test")[0].id.startswith("library/")
    True
    """

    folder: str = ""
    """Where the documents are; '' for the standard library's docstrings."""
    tools: ToolSet = "search"
    """`search`; `interact`, the primitives of Interact-RAG; or `query`, a search by meaning alone."""
    encoder: str = ""
    """What gives passages a meaning: `minilm` (extra `corpus`), `latent` (small corpora), or '' for none. With one,
    `search` ranks by meaning and words."""
    max_steps: int = 8
    """Messages after which the episode ends without an answer."""
    name = "library"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.tools not in SETS:
            raise PartError(f"environments/library: no tools {self.tools!r}; {suggest(self.tools, SETS)}")
        if self.tools != "search" and not self.encoder:
            wanted = " or ".join(ENCODERS)
            raise PartError(f"environments/library: tools {self.tools!r} search by meaning; set encoder to {wanted}")
        if self.folder and not Path(self.folder).is_dir():
            raise PartError(f"environments/library: folder {self.folder!r} is not there; give one that holds documents")

    @functools.cached_property
    def _documents(self) -> list[Document]:
        return read_folder(Path(self.folder)) if self.folder else docstrings()

    @functools.cached_property
    def corpus(self) -> Corpus:
        """Its index, made at the first look."""
        return Corpus.ensure(self._documents, size=120, overlap=LONGEST, encoder=self.encoder)

    @functools.cached_property
    def _splits(self) -> dict[str, list[Task]]:
        splits: dict[str, list[Task]] = {"train": [], "dev": [], "test": []}
        source = self.folder or f"docstrings of Python {platform.python_version()}"
        for data in questions(self._documents):
            place = int(_digest(data["document"], *data["path"]), 16) % 10
            split = "train" if place < 8 else "dev" if place == 8 else "test"
            identity = f"library/{_digest(data['question'], data['answer'])}"
            difficulty = 1.0 + KINDS.index(data["kind"])
            task = Task(identity, self, split, data, data["document"], difficulty, (data["kind"],), source)
            splits[split].append(task)
        if not any(splits.values()):
            wanted = f"sentences of {SHORTEST} to {LONGEST} words that nothing else says"
            raise FormatError(f"no question can be made of {source}: it has no {wanted}")
        return splits

    def tasks(self, split: str) -> Sequence[Task]:
        """Questions of `train`, `dev` or `test`, in the order of the documents. Raises PartError for another split."""
        if split not in self._splits:
            raise PartError(f"environments/library has no split {split!r}; {suggest(split, self._splits)}")
        return self._splits[split]

    def open(self) -> "LibrarySession":
        return LibrarySession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """Searches for what the question says, looks at the place, and answers."""
        data = task.data
        search, argument = FIRST[self.tools]
        calls = [ToolCall(search, {argument: data["said"]}, "call_0")]
        if data["kind"] != "document":
            calls.append(ToolCall("find", {"document": data["document"], "text": data["near"]}, "call_1"))
        acts = [Message("assistant", tool_calls=(call,)) for call in calls]
        return [*acts, Message("assistant", f"Answer: {data['answer']}")]

    def secrets(self, task: Task) -> list[str]:
        """The answer."""
        return [task.data["answer"]]


class LibrarySession(SearchSession):
    """One question."""

    def __init__(self, world: library):
        by = "hybrid" if world.encoder else "bm25"
        super().__init__(world.corpus, tools=world.tools, by=by, max_steps=world.max_steps)

    async def begin(self, task: Task, seed: int) -> Observation:
        self.prepare()
        self.answers = [words(text) for text in task.data["accepted"]]
        return Observation((Message("system", INSTRUCTION), Message("user", task.data["question"])))

    async def finish(self, answer: str) -> float:
        return float(words(marked(answer)) in self.answers)


# -- questions -------------------------------------------------------------------------------------------------------

SHORTEST, LONGEST = 8, 40  # words of a sentence that is asked about
RARE = 4  # words that tell a section


@dataclass(frozen=True)
class Place:
    """A section in its document."""

    document: Document
    path: tuple[str, ...]
    text: str
    """On one line."""
    terms: frozenset[str]


def questions(documents: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """At most one of each kind for each section, of its first sentence that will do."""
    places, told = [], []
    for document in documents:
        for section in document.sections:
            text = " ".join(section.text.split())
            places.append(Place(document, section.path or (document.title,), text, frozenset(_terms(text))))
            told.append(sentences(section.text))
    holders: dict[str, set[int]] = {}  # which places hold a term
    for n, place in enumerate(places):
        for term in place.terms:
            holders.setdefault(term, set()).add(n)
    titles = Counter(tuple(words(document.title)) for document in documents)
    headings = Counter(tuple(words(place.path[-1])) for place in places)
    for n, place in enumerate(places):
        open_kinds = list(KINDS)
        for sentence in told[n]:
            rare = sorted(set(_terms(sentence)), key=lambda term: (len(holders[term]), term))[:RARE]
            together = set.intersection(*(holders[term] for term in rare)) if rare else set[int]()
            if not open_kinds or [m for m in together if sentence in places[m].text] != [n]:
                continue
            for kind in tuple(open_kinds):
                if kind == "document":
                    data = _which_document(place, sentence, titles)
                elif kind == "section":
                    data = _which_section(place, rare, headings) if together == {n} and len(rare) == RARE else None
                else:
                    data = _which_word(place, sentence, rare)
                if data and not any(_holds(data["question"], answer) for answer in data["accepted"]):
                    open_kinds.remove(kind)
                    answer = data["accepted"][0]
                    yield {"kind": kind, "document": place.document.id, "path": place.path, "answer": answer, **data}


def sentences(text: str) -> list[str]:
    """The sentences of its paragraphs, each on one line; nothing of code, quotations, tables or indented text."""
    found = []
    for paragraph in text.split("\n\n"):
        if re.search(r"^\s|^[>*|.-]|::|`", paragraph, re.MULTILINE):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            plain = sum(c.isalpha() or c == " " for c in sentence) > 0.9 * len(sentence)
            if plain and SHORTEST <= len(sentence.split()) <= LONGEST and re.fullmatch(r'[A-Z][^"]*[.!?]', sentence):
                found.append(sentence)
    return found


def _which_document(place: Place, sentence: str, titles: Counter[tuple[str, ...]]) -> dict[str, Any]:
    title, name = place.document.title, place.document.id
    named = words(title) and titles[tuple(words(title))] == 1
    accepted = list(dict.fromkeys([title, name] if named else [name]))
    return {"question": f'Which document says: "{sentence}"', "accepted": accepted, "said": sentence, "near": ""}


def _which_section(place: Place, rare: list[str], headings: Counter[tuple[str, ...]]) -> dict[str, Any] | None:
    heading = place.path[-1]
    if not words(heading) or headings[tuple(words(heading))] > 1:
        return None
    question = f"Under which heading do these words stand together: {', '.join(rare[:-1])} and {rare[-1]}?"
    accepted = list(dict.fromkeys([heading, " > ".join(place.path)]))
    return {"question": question, "accepted": accepted, "said": " ".join(rare), "near": rare[0]}


def _which_word(place: Place, sentence: str, rare: list[str]) -> dict[str, Any] | None:
    """The rarest word is left out, where it stands in the sentence once and nothing else could stand there."""
    word = next(match for match in re.findall(r"\w+", sentence) if match.lower() == rare[0])
    before, _, after = re.split(rf"\b({word})\b", sentence, maxsplit=1)
    could = re.findall(rf"{re.escape(before)}(\w+){re.escape(after)}", place.text)
    if could != [word]:
        return None
    asked = f'In "{place.path[-1]}" of {place.document.id}, which word is left out: "{before}___{after}"'
    near = max(before.rpartition(" ")[0], after.partition(" ")[2], key=len)  # of the longer side, whole words
    return {"question": asked, "accepted": [word], "said": f"{before} {after}", "near": near}


def _holds(text: str, answer: str) -> bool:
    """Whether the text says the answer, by its words or letter by letter."""
    said, wanted = words(text), words(answer)
    among = any(said[i : i + len(wanted)] == wanted for i in range(len(said)))
    return among or answer.lower() in text.lower()


def _terms(text: str) -> list[str]:
    return re.findall(r"\b[a-z]{4,}\b", text.lower())


# -- documents of one's own ------------------------------------------------------------------------------------------


def docstrings() -> list[Document]:
    """Each of MODULES as a document: its docstrings under the dotted names of what they describe."""
    found = []
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue  # not in this version
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        found.append(Document(name, name, tuple(_described(tree, (name,))), {"kind": "module"}))
    return found


def _described(node: ast.AST, path: tuple[str, ...]) -> Iterator[Section]:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    text = ast.get_docstring(node)
    if text:
        yield Section(path, text)
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _described(child, (*path, f"{path[-1]}.{child.name}"))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
