"""A session with a corpus: search it, open its documents, find a place in one; the answer ends the episode.

There are three sets of tools. `search` has one search. `interact` has the primitives of a corpus interaction engine as
Interact-RAG names them, to be used several in one message: search by meaning, by words or by a weighted sum of both,
match an entity, include or exclude documents, change how many passages come. `query` has the search by meaning alone,
the black box that those are compared with.
"""

from collections.abc import Sequence
from typing import Any, Literal

from etude.core.errors import FormatError
from etude.environments.base import ToolSession
from etude.environments.functions import ToolError, tool
from etude.tools.corpus import By, Corpus, Hit
from etude.tools.documents import Document

ToolSet = Literal["search", "interact", "query"]
SETS = {
    "search": ("search", "open", "find"),
    "interact": (
        "semantic_search", "exact_search", "weighted_fusion", "entity_match", "include_docs", "exclude_docs",
        "adjust_scale", "open", "find",
    ),
    "query": ("semantic_search", "open", "find"),
}  # fmt: skip
MOST = 20  # passages of one search
NOTHING = "Nothing found."


class SearchSession(ToolSession):
    """Gives all of a session but `begin`, which calls `prepare`, and `finish`."""

    def __init__(
        self,
        corpus: Corpus,
        *,
        tools: ToolSet | Sequence[str] = "search",
        by: By = "bm25",
        k: int = 5,
        snippet: int = 400,
        page: int = 3000,
        **limits: Any,
    ):
        """tools: which set, or the names of some.
        by: how `search` ranks, see `Corpus.search`.
        k: passages that a search gives at first.
        snippet: characters shown of each passage; `open` shows the rest.
        page: characters of a page.
        limits: those of `ToolSession`.
        """
        super().__init__(**{"max_chars": page + 200, **limits})
        self.corpus, self.by, self.first_k, self.snippet, self.page = corpus, by, k, snippet, page
        self.schemas = [getattr(self, name).schema for name in (SETS[tools] if isinstance(tools, str) else tools)]

    def prepare(self) -> None:
        """Lift what an earlier episode set; `begin` calls it."""
        self.tools = self.schemas
        self.k, self.include, self.exclude = self.first_k, None, frozenset[str]()

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        try:
            return getattr(self, name)(**arguments)
        except FormatError as error:
            raise ToolError(str(error)) from error

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: nothing, for it has no answer yet."""
        return 0.0

    def save(self) -> dict[str, Any]:
        return {"k": self.k, "include": self.include, "exclude": self.exclude}

    def load(self, state: dict[str, Any]) -> None:
        self.k, self.include, self.exclude = state["k"], state["include"], state["exclude"]

    # -- tools -------------------------------------------------------------------------------------------------------

    @tool
    def search(self, query: str, k: int | None = None, filters: dict[str, Any] | None = None) -> str:
        """Find the passages that fit a query best. Each begins with the [id] of its document.

        k: how many
        filters: what the document's metadata must say: key -> value, or a list of values
        """
        return self._found(query, by=self.by, k=self.k if k is None else _scale(k), filters=filters)

    @tool
    def open(self, document: str, page: int = 1) -> str:
        """Read a page of a document.

        document: its id
        """
        pages = self.corpus.pages(self._document(document), self.page)
        if not 1 <= page <= len(pages):
            raise ToolError(f"{document!r} has no page {page}; its pages are 1 to {len(pages)}")
        return pages[page - 1] if len(pages) == 1 else f"{pages[page - 1]}\n(page {page} of {len(pages)})"

    @tool
    def find(self, document: str, text: str) -> str:
        """Show the lines of a document that hold a text, whatever its case, with the pages they are on.

        document: its id
        """
        places = self.corpus.find(self._document(document), text, self.page)
        shown = [f"page {page}: {self._cut(line)}" for page, line in places[:MOST]]
        more = [f"({len(places)} places in all)"] if len(places) > MOST else []
        return "\n".join([*shown, *more]) or NOTHING

    @tool
    def semantic_search(self, query: str) -> str:
        """Find the passages whose meaning is nearest. Each begins with the [id] of its document."""
        return self._found(query, by="dense")

    @tool
    def exact_search(self, keywords: str) -> str:
        """Find the passages that hold these words, the rare ones above all."""
        return self._found(keywords, by="bm25")

    @tool
    def weighted_fusion(self, query: str, semantic: float, exact: float) -> str:
        """Find passages by meaning and by words at once.

        semantic: weight of the meaning, 0 or more
        exact: weight of the words, 0 or more
        """
        if not (semantic >= 0 and exact >= 0 and semantic + exact > 0):
            raise ToolError(f"weights are {semantic} and {exact}; give 0 or more, and one of them above 0")
        return self._found(query, by="weighted", weights=(semantic, exact))

    @tool
    def entity_match(self, entity: str, query: str = "") -> str:
        """Find passages that name an entity: only those, and first the ones that fit the query, if there is one."""
        return self._found(query or entity, by="bm25", entity=entity)

    @tool
    def include_docs(self, documents: list[str]) -> str:
        """From now on search only in these documents; an empty list lifts that."""
        self.include = frozenset(self._document(name).id for name in documents) or None
        return self._shape()

    @tool
    def exclude_docs(self, documents: list[str]) -> str:
        """From now on leave these documents out, and no others; an empty list lifts that."""
        self.exclude = frozenset(self._document(name).id for name in documents)
        return self._shape()

    @tool
    def adjust_scale(self, k: int) -> str:
        """From now on show so many passages of each search."""
        self.k = _scale(k)
        return self._shape()

    # -- what they share ---------------------------------------------------------------------------------------------

    def _found(self, query: str, *, k: int | None = None, **how: Any) -> str:
        hits = self.corpus.search(query, k or self.k, include=self.include, exclude=self.exclude, **how)
        return "\n".join(map(self._line, hits)) or NOTHING

    def _line(self, hit: Hit) -> str:
        return f"[{hit.document}] {' > '.join(hit.path)}: {self._cut(' '.join(hit.text.split()))}"

    def _cut(self, text: str) -> str:
        return text if len(text) <= self.snippet else f"{text[: self.snippet]} ..."

    def _shape(self) -> str:
        among = "all documents" if self.include is None else ", ".join(sorted(self.include))
        without = f" without {', '.join(sorted(self.exclude))}" if self.exclude else ""
        return f"{self.k} passages from {among}{without}."

    def _document(self, name: str) -> Document:
        document = self.corpus.document(name)
        if document is None:
            near = self.corpus.search(name, 1)
            wanted = f"did you mean {near[0].document!r}?" if near else "a search gives the ids"
            raise ToolError(f"no document {name!r}; {wanted}")
        return document


def _scale(k: int) -> int:
    if not 1 <= k <= MOST:
        raise ToolError(f"k is {k}; give 1 to {MOST}")
    return k
