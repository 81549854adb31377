"""tools/documents: the same small page in four formats, and passages that lose nothing."""

from itertools import pairwise

import pytest

from etude.core.errors import FormatError
from etude.tools.documents import (
    Document,
    Section,
    passages,
    read_file,
    read_folder,
    read_html,
    read_markdown,
    read_rst,
    read_text,
)

MARKDOWN = """Before *all*.

# Birds

See [the list](list.html).

## Owls

- They fly
  at night.
- They see `well`.

| name | size |
|---|---|
| barn | small |

```
hoot()
```

Swans
-----

White.

# Fish
"""
HTML = """<!doctype html><html><head><title>All &amp; sundry</title><style>p {}</style></head><body>
<nav><a href=x>Home</a></nav><p>Before <em>all</em>.</p><h1>Birds</h1><p>See <a href=l>the
list</a>.<h2>Owls <small>(night)</small></h2><ul><li>They fly at night.</li><li>They <b>see</b></li></ul>
<pre>hoot(
  1)</pre><script>x = "<p>no</p>"</script><h2>Swans</h2>White.</body></html>"""
RST = """=======
 Birds
=======

.. _birds:

See :ref:`the list <list>` and ``owl()``.

Owls
====

.. note::

   They fly
   at **night**.

Barn
----
Small.

----

Old.

Swans
=====

White.
"""


def test_markdown():
    title, sections = read_markdown(MARKDOWN)
    assert title == "Birds"
    assert sections == (
        Section((), "Before all."),
        Section(("Birds",), "See the list."),
        Section(("Birds", "Owls"), "They fly\nat night.\n\nThey see well.\n\nname | size\n\nbarn | small\n\nhoot()"),
        Section(("Birds", "Swans"), "White."),
    )


def test_html():
    title, sections = read_html(HTML)
    assert title == "All & sundry"
    assert sections == (
        Section((), "Before all."),
        Section(("Birds",), "See the list."),
        Section(("Birds", "Owls (night)"), "They fly at night.\n\nThey see\n\nhoot(\n  1)"),
        Section(("Birds", "Swans"), "White."),
    )


def test_rst():
    title, sections = read_rst(RST)
    assert title == "Birds"
    assert sections == (
        Section(("Birds",), "See the list and owl()."),
        Section(("Birds", "Owls"), "   They fly\n   at night."),
        Section(("Birds", "Owls", "Barn"), "Small.\n\nOld."),
        Section(("Birds", "Swans"), "White."),
    )


def test_text():
    assert read_text("One\ntwo.\n \n\nThree.") == ("", (Section((), "One\ntwo.\n\nThree."),))


def test_a_folder_is_read_in_order_with_its_places(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "page.md").write_text("# Page\n\nWords.")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "picture.png").write_bytes(b"")
    first, second = read_folder(tmp_path)
    assert (first.id, first.title, first.meta) == ("a.txt", "a", {"kind": "txt", "folder": ""})
    assert first.sections[0].text == "caf\ufffd"
    assert (second.id, second.title, second.meta) == ("b/page.md", "Page", {"kind": "md", "folder": "b"})


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"cannot read '\.mdd' as a document; did you mean '\.md'"):
        read_file(tmp_path / "x.mdd")
    with pytest.raises(FormatError, match="holds no document"):
        read_folder(tmp_path)


@pytest.mark.parametrize(("count", "size", "overlap"), [(1, 5, 2), (5, 5, 2), (6, 5, 2), (8, 5, 2), (23, 5, 0)])
def test_passages_overlap_and_cover(count, size, overlap):
    words = [f"w{n}" for n in range(count)]
    document = Document("d", "Title", (Section((), "  \n".join(words)), Section(("A", "B"), "other words")))
    *found, last = passages(document, size, overlap)
    cut = [passage.text.split() for passage in found]
    assert all(len(piece) <= size for piece in cut)
    assert [word for n, piece in enumerate(cut) for word in piece[overlap * (n > 0) :]] == words
    assert all(a[-overlap:] == b[:overlap] for a, b in pairwise(cut) if overlap)
    assert all(passage.path == ("Title",) and passage.text in document.sections[0].text for passage in found)
    assert (last.path, last.text) == (("A", "B"), "other words")  # never over the border of a section
