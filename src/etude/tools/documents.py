"""Text, Markdown, HTML and reStructuredText as documents: sections under a path of headings, and passages of them.

Only what is read is kept: headings, paragraphs, list items, table rows and code. Of reStructuredText that is titles and
paragraphs; directives lose their first line and keep what stands in them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from etude.core.errors import FormatError, suggest


@dataclass(frozen=True)
class Section:
    """The text that stands under one heading, up to the next of any level."""

    path: tuple[str, ...]
    """The headings that it stands under, outermost first; empty before the first."""
    text: str
    """Paragraphs, separated by empty lines."""


@dataclass(frozen=True)
class Document:
    """One text with a name."""

    id: str
    title: str
    sections: tuple[Section, ...]
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON values, by which a search can be narrowed."""


@dataclass(frozen=True)
class Passage:
    """A piece of a section, what a search finds."""

    document: str
    path: tuple[str, ...]
    """Its section's, or the document's title where that has none."""
    text: str


def read_file(file: Path, name: str = "") -> Document:
    """A document by its suffix: .txt, .md, .html, .htm or .rst. `name` is its id, by default the file's name.

    Bytes that are not UTF-8 are replaced. Raises FormatError for another suffix.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise FormatError(f"{file}: cannot read {file.suffix!r} as a document; {suggest(file.suffix, READERS)}")
    name = name or file.name
    title, sections = reader(file.read_text(encoding="utf-8", errors="replace"))
    return Document(name, title or file.stem, sections, {"kind": file.suffix.lower().lstrip(".")})


def read_folder(folder: Path) -> list[Document]:
    """Every file below the folder that `read_file` knows, by its relative path, in alphabetical order.

    The metadata `folder` is the relative path of the file's own folder. Raises FormatError where there is none.
    """
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in READERS and f.is_file())
    if not files:
        raise FormatError(f"{folder} holds no document; the suffixes that are read are {', '.join(READERS)}")
    found = []
    for file in files:
        name = file.relative_to(folder)
        document = read_file(file, name.as_posix())
        parent = "" if len(name.parts) == 1 else name.parent.as_posix()
        found.append(Document(document.id, document.title, document.sections, {**document.meta, "folder": parent}))
    return found


def passages(document: Document, size: int, overlap: int) -> Iterator[Passage]:
    """Pieces of at most `size` words; one begins `overlap` words before the last of its section ended."""
    for section in document.sections:
        spans = [match.span() for match in re.finditer(r"\S+", section.text)]
        for first in range(0, max(1, len(spans) - overlap), size - overlap):
            words = spans[first : first + size]
            if words:
                path = section.path or (document.title,)
                yield Passage(document.id, path, section.text[words[0][0] : words[-1][1]])


# -- readers ---------------------------------------------------------------------------------------------------------

Read = tuple[str, tuple[Section, ...]]


class _Outline:
    """Collects headings and paragraphs in the order in which they stand."""

    def __init__(self) -> None:
        self.title = ""
        self.sections: list[Section] = []
        self._path: list[tuple[int, str]] = []
        self._paragraphs: list[str] = []

    def heading(self, level: int, text: str) -> None:
        self._close()
        text = " ".join(text.split())
        self.title = self.title or text
        self._path = [(at, above) for at, above in self._path if at < level] + [(level, text)]

    def paragraph(self, text: str) -> None:
        if text.strip():
            self._paragraphs.append(text.strip("\n"))

    def _close(self) -> None:
        if self._paragraphs:
            path = tuple(text for _, text in self._path)
            self.sections.append(Section(path, "\n\n".join(self._paragraphs)))
            self._paragraphs = []

    def done(self) -> Read:
        self._close()
        return self.title, tuple(self.sections)


def read_text(text: str) -> Read:
    """Paragraphs, and no headings."""
    outline = _Outline()
    for paragraph in re.split(r"\n\s*\n", text):
        outline.paragraph(paragraph)
    return outline.done()


def read_markdown(text: str) -> Read:
    """CommonMark with tables; markup within a line is dropped, and so is raw HTML."""
    from markdown_it import MarkdownIt

    outline, level, row = _Outline(), 0, None
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            outline.paragraph(" | ".join(row or []))
            row = None
        elif token.type in ("fence", "code_block"):
            outline.paragraph(token.content)
        elif token.type == "inline":
            words = "".join(_plain(child) for child in token.children or [])
            if level:
                outline.heading(level, words)
                level = 0
            elif row is not None:
                row.append(words)
            else:
                outline.paragraph(words)
    return outline.done()


def _plain(token: Any) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    return token.content if token.type in ("text", "code_inline", "image") else ""


BLOCKS = {
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figure", "footer", "form",
    "header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
}  # fmt: skip
UNSEEN = {"script", "style", "template", "noscript", "nav", "svg"}


class _Page(HTMLParser):
    """Words between the tags of blocks are a paragraph; <title> is the title."""

    def __init__(self) -> None:
        super().__init__()
        self.outline = _Outline()
        self.words: list[str] = []
        self.unseen = 0
        self.title = ""
        self.literal = False

    def flush(self, tag: str = "") -> None:
        text = "".join(self.words)
        self.words = []
        text = text if self.literal else " ".join(text.split())
        if tag == "title":
            self.title = text
        elif re.fullmatch("h[1-6]", tag):
            if text:
                self.outline.heading(int(tag[1]), text)
        else:
            self.outline.paragraph(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen += tag in UNSEEN
        if tag in BLOCKS or tag == "title" or re.fullmatch("h[1-6]", tag):
            self.flush()
        if tag == "pre":
            self.literal = True

    def handle_endtag(self, tag: str) -> None:
        self.unseen = max(0, self.unseen - (tag in UNSEEN))
        if tag in BLOCKS or tag == "title" or re.fullmatch("h[1-6]", tag):
            self.flush(tag)
        if tag == "pre":
            self.literal = False

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.words.append(data)


def read_html(text: str) -> Read:
    """Headings and blocks of text; scripts, styles and navigation are left out."""
    page = _Page()
    page.feed(text)
    page.close()
    page.flush()
    title, sections = page.outline.done()
    return page.title or title, sections


RULE = re.compile(r"([!-/:-@\[-`{-~])\1*\s*")  # a line of one sign, which makes the line before it a title
DIRECTIVE = re.compile(r"\s*\.\. (\S+::.*|_.*:.*|\[.*\].*|\|.*\|.*)")
ROLE = re.compile(r":[\w:+.-]+:`~?!?([^`<]*?)(?: <[^`>]*>)?`")


def read_rst(text: str) -> Read:
    """Titles by their underlines, whose signs are levels in the order in which they first come; and paragraphs."""
    outline, levels = _Outline(), dict[str, int]()
    paragraph: list[str] = []
    lines = [*text.expandtabs().splitlines(), ""]
    n = 0
    while n < len(lines):
        line, below = lines[n], lines[n + 1] if n + 1 < len(lines) else ""
        overlined = _is_rule(line) and not paragraph and n + 2 < len(lines) and _is_rule(lines[n + 2], below)
        if overlined or (not paragraph and line.strip() and not line[0].isspace() and _is_rule(below, line)):
            style = line[0] * 2 if overlined else below[0]
            outline.heading(levels.setdefault(style, len(levels) + 1), _unmarked(below if overlined else line))
            n += 3 if overlined else 2
            continue
        if not line.strip():
            outline.paragraph(_unmarked("\n".join(paragraph)))
            paragraph = []
        elif not DIRECTIVE.fullmatch(line) and not (_is_rule(line) and len(line.strip()) > 3):
            paragraph.append(line)
        n += 1
    return outline.done()


def _is_rule(line: str, title: str = "") -> bool:
    """Whether it can underline this title."""
    return bool(RULE.fullmatch(line)) and len(line.rstrip()) >= max(len(title.strip()), 1) and not RULE.fullmatch(title)


def _unmarked(text: str) -> str:
    text = ROLE.sub(r"\1", text)
    return re.sub(r"``(.+?)``|\*\*(.+?)\*\*", lambda match: match[1] or match[2], text)


READERS: dict[str, Callable[[str], Read]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".rst": read_rst,
}
