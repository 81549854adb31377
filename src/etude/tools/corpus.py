"""A corpus that is searched: passages by their words, by their meaning, or both; documents opened and read in pages.

BM25 is SQLite's FTS5 (k1 = 1.2, b = 0.75, Porter stems), see Robertson & Zaragoza 2009, doi.org/10.1561/1500000019. A
meaning is a vector of `embed.py`. `Corpus.ensure` makes the index once, into a folder named by a digest of the
documents and the settings; it is then only read, and shared by all that ask for it. Of equal scores, the passage that
stands first in the corpus comes first; where two lists were made one, the passage that stands first in the dense one.
"""

import functools
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from etude.core.cache import cache_directory
from etude.core.errors import FormatError, PartError, suggest
from etude.tools import embed, ranking
from etude.tools.documents import Document, Section, passages

VERSION = 1  # of the index; grows when what is written changes
TERMS = 64  # of a query, what is searched for; FTS5 takes no endless ones
DEPTH = 200  # of either list, what is looked at where two are made one
COMMON = {
    "a", "an", "and", "are", "as", "at", "be", "both", "by", "did", "do", "does", "for", "from", "had", "has",
    "have", "he", "her", "his", "how", "in", "is", "it", "its", "of", "on", "or", "s", "she", "that", "the", "their",
    "there", "these", "they", "this", "to", "was", "were", "what", "when", "where", "which", "who", "whom",
    "whose", "why", "will", "with",
}  # fmt: skip
"""Words that are left out of a query that has others: they weigh next to nothing and take most of the time."""
By = Literal["bm25", "dense", "hybrid", "weighted"]
SCHEMA = """
CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT UNIQUE, title TEXT, meta TEXT);
CREATE TABLE sections (document INTEGER, path TEXT, text TEXT);
CREATE INDEX sections_of ON sections (document);
CREATE TABLE passages (number INTEGER PRIMARY KEY, document INTEGER, path TEXT, text TEXT);
CREATE VIRTUAL TABLE words USING fts5(body, content='', tokenize='porter unicode61 remove_diacritics 2');
"""


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    number: int
    document: str
    path: tuple[str, ...]
    text: str
    score: float


class Corpus:
    """An index, opened to be read.

    It may be used in several threads, and be copied to or forked into other processes, each of which opens it anew.
    """

    def __init__(self, folder: Path):
        """folder: what `ensure` made."""
        self.folder = folder
        self._open: tuple[int, sqlite3.Connection] | None = None

    @classmethod
    def ensure(
        cls,
        documents: Iterable[Document],
        *,
        size: int = 200,
        overlap: int = 40,
        encoder: str = "",
        cache: Path | None = None,
    ) -> "Corpus":
        """The index of these documents; made first where the cache does not hold it.

        size, overlap: words of a passage, and words that it shares with the one before.
        encoder: what gives passages a meaning: `minilm`, `latent`, or '' for none; see `embed.py`.
        cache: by default `corpora` in $ETUDE_CACHE or ~/.cache/etude.
        Raises FormatError where two documents have one id or there is none, PartError for a setting that does not fit.
        """
        if encoder not in ("", *embed.ENCODERS):
            raise PartError(f"corpus: no encoder {encoder!r}; {suggest(encoder, embed.ENCODERS)}")
        if not 0 <= overlap < size:
            raise PartError(f"corpus: overlap is {overlap} and size {size}; give 0 <= overlap < size")
        documents = list(documents)
        encode = json.JSONEncoder(sort_keys=True).encode
        digest = hashlib.sha256(encode([VERSION, size, overlap, encoder]).encode())
        for document in documents:
            sections = [(section.path, section.text) for section in document.sections]
            row = [document.id, document.title, sections, document.meta]
            digest.update(encode(row).encode())
        cache = cache or cache_directory() / "corpora"
        target = cache / digest.hexdigest()[:24]
        if not target.exists():
            cache.mkdir(parents=True, exist_ok=True)
            # built aside and moved in whole: who is killed leaves nothing, and of two who build at once the first wins
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=cache))
            try:
                _build(aside, documents, size, overlap, encoder)
                if not target.exists():
                    os.rename(aside, target)
            except OSError:
                if not target.exists():
                    raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        return cls(target)

    # -- documents ---------------------------------------------------------------------------------------------------

    def document(self, name: str) -> Document | None:
        """The document of this id; None where there is none."""
        query = "SELECT number, title, meta FROM documents WHERE id = ?"
        row = self._sql(query, _clean(name)).fetchone()
        if row is None:
            return None
        query = "SELECT path, text FROM sections WHERE document = ? ORDER BY rowid"
        sections = tuple(Section(tuple(json.loads(path)), text) for path, text in self._sql(query, row[0]))
        return Document(_clean(name), row[1], sections, json.loads(row[2]))

    def pages(self, document: Document, chars: int = 3000) -> list[str]:
        """Its text under its headings, in pages of at most so many characters, cut between words where there are any.

        A heading is a line `# outer > inner`.
        """
        shown = [f"# {' > '.join(s.path)}\n{s.text}" if s.path else s.text for s in document.sections]
        text, found = "\n\n".join(shown), []
        while len(text) > chars:
            cut = next((at for sign in ("\n\n", "\n", " ") if (at := text.rfind(sign, chars // 2, chars)) > 0), chars)
            found.append(text[:cut].strip())
            text = text[cut:].strip()
        return [*found, text]

    def find(self, document: Document, text: str, chars: int = 3000) -> list[tuple[int, str]]:
        """Each place where the document says the text, whatever its case and spaces: page, from 1, and line."""
        wanted = _spaced(text)
        found = []
        for number, page in enumerate(self.pages(document, chars), 1):
            for match in wanted.finditer(page):
                first, last = page.rfind("\n", 0, match.start()) + 1, page.find("\n", match.end())
                found.append((number, page[first : last if last >= 0 else None]))
        return found

    # -- search ------------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        by: By = "bm25",
        weights: tuple[float, float] = (0.5, 0.5),
        filters: Mapping[str, Any] | None = None,
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
        entity: str = "",
    ) -> list[Hit]:
        """The k best passages, fewer where fewer fit.

        by: `bm25`, `dense` (the cosine of meanings), `hybrid` (reciprocal rank fusion of both) or `weighted` (weighted
            sum of both scores, each scaled to [0, 1]).
        weights: of dense and BM25, for `weighted`.
        filters: metadata key -> the value, or a list of values, that a document must have.
        include, exclude: ids of documents: only these, and not these.
        entity: only passages that hold this text, as whole words, whatever its case; those that the query does not
            fit come last, with score 0.
        Raises FormatError for a key that no document has, PartError where meanings are asked of a corpus without.
        """
        allowed_N = self._allowed(filters or {}, include, exclude, entity)
        if by == "bm25":
            found = self._bm25(query, k, allowed_N)
        elif by == "dense":
            found = self._dense(query, k, allowed_N)
        else:
            depth = max(k, DEPTH)
            lists = [self._dense(query, depth, allowed_N), self._bm25(query, depth, allowed_N)]
            if by == "weighted":
                found = ranking.weighted(lists, weights)
            else:
                found = ranking.reciprocal([[number for number, _ in each] for each in lists])
        if entity and allowed_N is not None:
            fitting = {number for number, _ in found}
            found = [*found, *((int(n), 0.0) for n in np.flatnonzero(allowed_N) if n not in fitting)]
        return [self._hit(number, score) for number, score in found[:k]]

    def holding(self, entity: str) -> list[int]:
        """Numbers of the passages whose headings or text hold this as whole words, whatever its case and spaces."""
        phrase, wanted = _phrase(entity), _spaced(entity)
        if not phrase:
            return []
        query = """SELECT number, path, text FROM passages WHERE number IN
                   (SELECT rowid FROM words WHERE words MATCH ?) ORDER BY number"""
        rows = self._sql(query, phrase)  # stems and accents let through too many
        return [number for number, path, text in rows if wanted.search(_body(json.loads(path), text))]

    def _bm25(self, query: str, k: int, allowed_N: np.ndarray | None) -> list[tuple[int, float]]:
        terms = {term.casefold(): phrase for term in re.findall(r"\w+", query) if (phrase := _phrase(term))}
        telling = [terms[term] for term in terms if term not in COMMON] or list(terms.values())
        asked = " OR ".join(telling[:TERMS])
        if not asked:
            return []
        order = "SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ? ORDER BY score DESC, rowid"
        if allowed_N is None:
            return self._sql(f"{order} LIMIT ?", asked, k).fetchall()
        rows = (row for row in self._sql(order, asked) if allowed_N[row[0]])
        return [row for row, _ in zip(rows, range(k), strict=False)]

    def _dense(self, query: str, k: int, allowed_N: np.ndarray | None) -> list[tuple[int, float]]:
        if self._vectors_ND is None:
            raise PartError("corpus: it was indexed without meanings; make it with encoder='minilm' or 'latent'")
        query_D = self._encode([_clean(query)])[0]
        if not query_D.any():  # no word is known, so nothing is nearer than anything else
            return []
        score_N = self._vectors_ND @ query_D
        numbers = np.arange(len(score_N)) if allowed_N is None else np.flatnonzero(allowed_N)
        order = np.lexsort((numbers, -score_N[numbers]))[:k]
        return [(int(n), float(score_N[n])) for n in numbers[order]]

    def _allowed(
        self, filters: Mapping[str, Any], include: Collection[str] | None, exclude: Collection[str], entity: str
    ) -> np.ndarray | None:
        """bool [N], one for each passage; None where all are."""
        if not filters and include is None and not exclude and not entity:
            return None
        names, metas = self._documents
        fits_D = np.ones(len(names), bool)
        for key, wanted in filters.items():
            if key not in self.fields:
                raise FormatError(f"no document has {key!r} to filter by; {suggest(key, self.fields)}")
            values = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
            fits_D &= np.fromiter((meta.get(key) in values for meta in metas), bool, len(metas))
        place = self._places
        if include is not None:
            chosen = np.zeros(len(names), bool)
            chosen[[place[name] for name in include if name in place]] = True
            fits_D &= chosen
        fits_D[[place[name] for name in exclude if name in place]] = False
        allowed_N = fits_D[self._document_N]
        if entity:
            holds_N = np.zeros(len(allowed_N), bool)
            holds_N[self.holding(entity)] = True
            allowed_N &= holds_N
        return allowed_N

    def _hit(self, number: int, score: float) -> Hit:
        query = "SELECT d.id, p.path, p.text FROM passages p JOIN documents d ON d.number = p.document"
        document, path, text = self._sql(f"{query} WHERE p.number = ?", number).fetchone()
        return Hit(number, document, tuple(json.loads(path)), text, score)

    # -- what was built ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def fields(self) -> list[str]:
        """Keys of the documents' metadata."""
        return sorted({key for meta in self._documents[1] for key in meta})

    @functools.cached_property
    def names(self) -> list[str]:
        """Ids of the documents, in the corpus's order."""
        return self._documents[0]

    @functools.cached_property
    def _documents(self) -> tuple[list[str], list[dict[str, Any]]]:
        rows = self._sql("SELECT id, meta FROM documents ORDER BY number").fetchall()
        return [name for name, _ in rows], [json.loads(meta) for _, meta in rows]

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: n for n, name in enumerate(self.names)}

    @functools.cached_property
    def _document_N(self) -> np.ndarray:
        rows = self._sql("SELECT document FROM passages ORDER BY number")
        return np.fromiter((document for (document,) in rows), np.int64)

    @functools.cached_property
    def _vectors_ND(self) -> np.ndarray | None:
        file = self.folder / "vectors.npy"
        return np.load(file, mmap_mode="r") if file.exists() else None

    @functools.cached_property
    def _encode(self) -> embed.Encode:
        return embed.load(self.folder)

    def _sql(self, query: str, *values: Any) -> sqlite3.Cursor:
        if self._open is None or self._open[0] != os.getpid():  # a connection must not be carried over a fork
            place = f"file:{quote(str(self.folder / 'index.sqlite'))}?mode=ro&immutable=1"
            self._open = os.getpid(), sqlite3.connect(place, uri=True, check_same_thread=False)
        return self._open[1].execute(query, values)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_open": None}


def _build(folder: Path, documents: Sequence[Document], size: int, overlap: int, encoder: str) -> None:
    """Write the index into an empty folder."""
    if not documents:
        raise FormatError("a corpus of no documents cannot be searched; give it some")
    db = sqlite3.connect(folder / "index.sqlite")
    db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}")
    bodies: list[str] = []
    for n, document in enumerate(documents):
        row = (n, document.id, document.title, json.dumps(document.meta))
        try:
            db.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise FormatError(f"two documents have the id {document.id!r}; ids must differ") from error
        sections = [(n, json.dumps(s.path), s.text) for s in document.sections]
        db.executemany("INSERT INTO sections VALUES (?, ?, ?)", sections)
        for passage in passages(document, size, overlap):
            number, body = len(bodies), _body(passage.path, passage.text)
            db.execute("INSERT INTO passages VALUES (?, ?, ?, ?)", (number, n, json.dumps(passage.path), passage.text))
            db.execute("INSERT INTO words (rowid, body) VALUES (?, ?)", (number, body))
            bodies.append(body)
    db.execute("INSERT INTO words (words) VALUES ('optimize')")
    db.commit()
    db.close()
    if encoder:
        np.save(folder / "vectors.npy", embed.fit(encoder, bodies, folder)(bodies))


def _body(path: Sequence[str], text: str) -> str:
    """What is indexed of a passage, and shown of it."""
    return f"{' > '.join(path)}\n{text}"


def _phrase(text: str) -> str:
    """An FTS5 phrase; '' where the text holds nothing that FTS5 would index."""
    text = _clean(text).replace('"', " ")
    return f'"{text}"' if any(c.isalnum() for c in text) else ""


def _spaced(text: str) -> re.Pattern[str]:
    """Finds the text as whole words, whatever its case and spaces; an empty one nowhere."""
    words = r"\s+".join(map(re.escape, text.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)" if words else "$^", re.IGNORECASE)


def _clean(text: str) -> str:
    """Without what SQLite does not take: lone surrogates, and the sign that ends a C string."""
    return text.encode("utf-8", "ignore").decode().replace("\0", " ")


def lines(hits: Iterable[Hit]) -> Iterator[str]:
    """Each hit as an agent reads it."""
    for hit in hits:
        yield f"[{hit.document}] {_body(hit.path, hit.text)}"
