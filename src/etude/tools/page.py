"""A web page as text: Chromium's accessibility tree, with a number on whatever can be acted on.

    [3] textbox "Name" value "Ann" focused
    row: tea | 4.50 | [7] button "Add"
    [9] circle #ff0000 20x20 at 31,60

Roles, names and states are Chromium's own (`Accessibility.getFullAXTree`). What responds to the mouse without saying so
by its role, such as a `div` with a listener, is known from `DOMSnapshot.captureSnapshot`. Neither changes the page.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

STYLES = ["display", "background-color", "fill"]
ACTING = {
    "button", "Canvas", "checkbox", "ColorWell", "combobox", "Date", "DateTime", "DisclosureTriangle", "InputTime",
    "link", "listbox", "menuitem", "menuitemcheckbox", "menuitemradio", "option", "radio", "searchbox", "slider",
    "spinbutton", "switch", "tab", "textbox", "treeitem",
}  # fmt: skip
TOLD = {"alert", "alertdialog", "dialog", "heading", "img", "image", "listitem", "menu", "navigation",
        "progressbar", "row", "search", "status", "table", "tablist", "tabpanel", "tooltip"}  # fmt: skip
PAGE = ("#document", "HTML", "BODY")  # a listener there says nothing of what is in it
FIELDS = {"combobox", "listbox", "searchbox", "spinbutton", "textbox"}  # their content is a value, not a name
CELLS = {"cell", "columnheader", "gridcell", "rowheader"}
STATES = ("checked", "pressed", "selected", "expanded", "disabled", "readonly", "required", "invalid", "focused")


@dataclass(frozen=True)
class Look:
    """How an element is drawn."""

    tag: str
    classes: str
    clickable: bool
    """Whether it listens to the mouse."""
    styles: dict[str, str]
    box: tuple[float, float, float, float]
    """x, y, width, height in pixels; place as it is scrolled, within its frame."""


NOT_DRAWN = Look("", "", False, {}, (0, 0, 0, 0))


@dataclass
class Marks:
    """Numbers of elements, by backend node id. An element keeps its number while its document is shown."""

    given: dict[int, int] = field(default_factory=dict[int, int])
    shown: dict[int, int] = field(default_factory=dict[int, int])
    """Of the last view: number -> backend node id."""

    def mark(self, element: int) -> str:
        number = self.given.setdefault(element, len(self.given) + 1)
        self.shown[number] = element
        return f"[{number}]"


@dataclass
class Line:
    text: str
    flows: bool = False
    """Whether it is part of a running line."""
    marked: bool = False
    """Whether it holds a mark."""
    depth: int = 0


def looks(snapshot: dict[str, Any]) -> dict[int, Look]:
    """backend node id -> Look, of all that is drawn; from `DOMSnapshot.captureSnapshot` with STYLES."""
    strings, found = snapshot["strings"], dict[int, Look]()
    for document in snapshot["documents"]:
        nodes, layout = document["nodes"], document["layout"]
        clickable = set(nodes["isClickable"]["index"])
        for i, styles, box in zip(layout["nodeIndex"], layout["styles"], layout["bounds"], strict=True):
            pairs = [strings[s] for s in nodes["attributes"][i]]
            classes = dict(zip(pairs[::2], pairs[1::2], strict=True)).get("class", "")
            drawn = dict(zip(STYLES, (strings[s] for s in styles), strict=False))  # text nodes have none
            place = (box[0] - document["scrollOffsetX"], box[1] - document["scrollOffsetY"], box[2], box[3])
            look = Look(strings[nodes["nodeName"][i]], classes, i in clickable, drawn, place)
            found.setdefault(nodes["backendNodeId"][i], look)
    return found


def describe(trees: dict[int | None, list[dict[str, Any]]], drawn: dict[int, Look], marks: Marks) -> list[str]:
    """The page's lines.

    trees: accessibility nodes of each frame, by backend node id of the element that holds it; None for the page's own.
    marks: `shown` becomes what the lines number.
    """
    marks.shown.clear()
    return ["  " * line.depth + line.text for line in _block(_Writer(trees, drawn, marks).frame(None))]


class _Writer:
    def __init__(self, trees: dict[int | None, list[dict[str, Any]]], drawn: dict[int, Look], marks: Marks):
        self.trees, self.drawn, self.marks = trees, drawn, marks

    def frame(self, owner: int | None) -> list[Line]:
        nodes = {node["nodeId"]: node for node in self.trees[owner]}
        return self.write(self.trees[owner][0], nodes, live=False) if nodes else []

    def write(self, node: dict[str, Any], nodes: dict[str, Any], live: bool) -> list[Line]:
        """live: whether it lies within something that listens to the mouse."""
        role, name, element = _role(node), _name(node), node.get("backendDOMNodeId", 0)
        if role == "StaticText":
            return [Line(node["name"]["value"], flows=True)]
        if role == "Iframe":
            return [Line("frame:"), *_indent(self.frame(element))] if element in self.trees else []
        look = self.drawn.get(element, NOT_DRAWN)
        mark, listens = self.mark(node, nodes, look)
        inline = look.styles.get("display", "").startswith("inline")
        if look.tag == "SELECT":
            options = (_head(held, _name(held)) for held in _below(node, nodes) if _role(held) == "option")
            return [Line(f" {mark} {role} {_head(node, name)} options {', '.join(options)} ", inline, bool(mark))]
        children = (nodes[child] for child in node["childIds"] if child in nodes)
        inner = _joined([line for child in children for line in self.write(child, nodes, live or listens)])
        words_only = all(line.flows and not line.marked for line in inner)
        if not mark and live and words_only and _seen(look) and not node["ignored"] and look.tag != "LABEL":
            mark = self.marks.mark(element)  # a listener on a whole list is there for its items
        if mark or role in TOLD:
            return _element(node, look, mark, _block(inner), words_only, inline)
        return inner if inline else _cell(_block(inner)) if role in CELLS else _block(inner)

    def mark(self, node: dict[str, Any], nodes: dict[str, Any], look: Look) -> tuple[str, bool]:
        """The element's number, '' for one that nothing can be done with; and whether it listens to the mouse."""
        listens = look.clickable and look.tag not in PAGE
        if look.tag == "LABEL" and any(_role(held) in ACTING for held in _below(node, nodes)):
            listens = False  # clicking what it holds is the same
        acts = not node["ignored"] and (_role(node) in ACTING or _properties(node).get("focusable") is True)
        numbered = _seen(look) and (listens or acts)
        return (self.marks.mark(node["backendDOMNodeId"]) if numbered else ""), listens


def _element(node: Any, look: Look, mark: str, inner: list[Line], words_only: bool, inline: bool) -> list[Line]:
    """The line of an element that is told, and below it what it holds and its name has not said."""
    role, name = _role(node), _name(node)
    if role == "row":
        return [Line(" ".join([mark, "row:", " | ".join(line.text for line in inner)]).strip(), marked=True)]
    if role == "listitem" and not mark and len(inner) == 1:
        return inner
    if words_only and role not in FIELDS:
        name = name or " ".join(line.text for line in inner)
    if words_only or role in ACTING:
        inner = [line for line in inner if line.marked]
    if not (mark or name or inner):
        return []
    words = [mark, role if role in ACTING | TOLD else "", _head(node, name)]
    if mark and role not in ACTING and not inner and (not name or _shape(look)):
        words[2:2] = [_drawing(look)]
    elif not any(words[1:]):
        words[1] = "group"
    text = f" {' '.join(filter(None, words))} "
    return [Line(text, inline and not inner, bool(mark)), *_indent(inner)]


def _seen(look: Look) -> bool:
    return min(look.box[2:]) > 0 and look.tag not in PAGE


def _role(node: dict[str, Any]) -> str:
    return node["role"]["value"]


def _name(node: dict[str, Any]) -> str:
    return " ".join(str(node.get("name", {}).get("value", "")).split())


def _properties(node: dict[str, Any]) -> dict[str, Any]:
    return {p["name"]: p["value"].get("value") for p in node.get("properties", ())}


def _below(node: dict[str, Any], nodes: dict[str, Any]) -> list[dict[str, Any]]:
    children = [nodes[child] for child in node["childIds"] if child in nodes]
    return [found for child in children for found in (child, *_below(child, nodes))]


def _head(node: dict[str, Any], name: str) -> str:
    """Name, value and states."""
    words = [f'"{name}"'] if name else []
    if "value" in node and _role(node) in ACTING | {"progressbar"}:
        words.append(f'value "{node["value"].get("value", "")}"')
    held = _properties(node)
    if _role(node) == "combobox" and held.get("expanded") is False:
        del held["expanded"]
    for state in STATES:
        value = held.get(state)
        if value in (True, "true", "mixed") or (state in ("checked", "expanded") and value in (False, "false")):
            words.append(state if value in (True, "true") else f"{state}={str(value).lower()}")
    return " ".join(words)


def _shape(look: Look) -> bool:
    return look.tag.islower()  # Chromium gives HTML's names in capitals, SVG's as they are


def _drawing(look: Look) -> str:
    """What tells a thing without words from another: what it is, its colour, size and place."""
    x, y, width, height = map(round, look.box)
    colour = _hex(look.styles.get("fill" if _shape(look) else "background-color", ""))
    name = ".".join([look.tag.lower(), *look.classes.split()])
    return " ".join(filter(None, [name, colour, f"{width}x{height} at {x},{y}"]))


def _hex(colour: str) -> str:
    """'rgb(255, 0, 0)' as '#ff0000'; '' for what is transparent.

    >>> _hex("rgb(255, 0, 16)"), _hex("rgba(0, 0, 0, 0)"), _hex("none")
    ('#ff0010', '', '')
    """
    numbers = re.findall(r"[\d.]+", colour) if colour.startswith("rgb") else []
    if len(numbers) < 3 or (len(numbers) == 4 and float(numbers[3]) == 0):
        return ""
    return "#" + "".join(f"{int(float(n)):02x}" for n in numbers[:3])


def _joined(lines: list[Line]) -> list[Line]:
    """Neighbours that flow become one line, with the spaces that they have."""
    joined: list[Line] = []
    for line in lines:
        if line.flows and joined and joined[-1].flows:
            joined[-1] = Line(joined[-1].text + line.text, True, joined[-1].marked or line.marked)
        else:
            joined.append(line)
    return joined


def _block(lines: list[Line]) -> list[Line]:
    """Lines that do not flow on into what comes next; those that are blank are left out."""
    clean = (Line(" ".join(line.text.split()), False, line.marked, line.depth) for line in lines)
    return [line for line in clean if line.text]


def _cell(lines: list[Line]) -> list[Line]:
    return [Line("; ".join(line.text for line in lines), marked=any(line.marked for line in lines))]


def _indent(lines: list[Line]) -> list[Line]:
    return [replace(line, depth=line.depth + 1) for line in lines]
