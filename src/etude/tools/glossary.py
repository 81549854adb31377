"""What the words of a house mean, each by the context it is used in; and questions that are told it before a search.

Golden-Retriever (An et al. 2024, arXiv:2408.00798): the terms of a question and its context are found first, by whoever
asks; the dictionary is then asked by a fixed query, never by one that a model wrote; and the question that is searched
for is the one that was asked, its context and what its terms mean there. A term that the dictionary does not have is
told, and nothing is searched for in its place.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from etude.core.errors import FormatError, suggest

SCHEMA = """CREATE TABLE jargon (
    term TEXT COLLATE NOCASE, context TEXT, name TEXT, description TEXT, notes TEXT, PRIMARY KEY (term, context))"""
LOOKUP = "SELECT term, context, name, description, notes FROM jargon WHERE term = ? AND context = ?"


@dataclass(frozen=True)
class Entry:
    """One meaning of a term."""

    term: str
    context: str
    name: str
    """In full."""
    description: str = ""
    notes: str = ""

    def __str__(self) -> str:
        return f"{self.term}: {', '.join(filter(None, (self.name, self.description, self.notes)))}."


class Glossary:
    """A dictionary in SQLite, in memory. Upper and lower case of a term are one; a context is written as it is listed.

    >>> glossary = Glossary([Entry("CFP", "etching", "Cold Fine Pump")], {"etching": "plasma and gases"})
    >>> glossary.augment("Who owns the CFP?", ["CFP"], "etching")
    ('Who owns the CFP? (Context: etching, plasma and gases. CFP: Cold Fine Pump.)', [])
    >>> glossary.augment("Who owns the XYZ?", ["XYZ"], "etching")
    ('Who owns the XYZ?', ['XYZ'])
    """

    def __init__(self, entries: Iterable[Entry], contexts: Mapping[str, str]):
        """contexts: name -> a few words that say what it is about.

        Raises FormatError for an entry whose context is not among them, or that is there twice.
        """
        self.contexts = dict(contexts)
        self._rows = sqlite3.connect(":memory:", check_same_thread=False)
        self._rows.execute(SCHEMA)
        for entry in entries:
            if entry.context not in self.contexts:
                place = f"glossary: {entry.term!r} has the context {entry.context!r}"
                raise FormatError(f"{place}; {suggest(entry.context, self.contexts)}")
            try:
                self._rows.execute("INSERT INTO jargon VALUES (?, ?, ?, ?, ?)", astuple(entry))
            except sqlite3.IntegrityError as error:
                raise FormatError(f"glossary: {entry.term!r} has two entries in {entry.context!r}; keep one") from error

    def __len__(self) -> int:
        return self._rows.execute("SELECT count(*) FROM jargon").fetchone()[0]

    def lookup(self, term: str, context: str) -> Entry | None:
        """What the term means in this context; None where it has no entry there."""
        row = self._rows.execute(LOOKUP, (term.strip(), context)).fetchone()
        return Entry(*row) if row else None

    def augment(self, question: str, terms: Sequence[str], context: str) -> tuple[str, list[str]]:
        """The question with its context and the entries of its terms there, and the terms that have none.

        It stays as it is where a term has no entry, where there are no terms, and where the dictionary is empty: such
        a dictionary says of no term that it is unknown.
        """
        asked = list(dict.fromkeys(terms))
        found = {term: self.lookup(term, context) for term in asked}
        unknown = [term for term in asked if found[term] is None] if len(self) else []
        if not asked or unknown or not len(self):
            return question, unknown
        meanings = " ".join(str(found[term]) for term in asked)
        return f"{question} (Context: {context}, {self.contexts[context]}. {meanings})", []
