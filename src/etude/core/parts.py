"""Parts found by path: `credit/rloo` is the function or class marked `@part` in `etude/credit/rloo.py`.

Nothing is registered by hand. Listing parts reads the source with `ast`, so no heavy library is imported; loading one
imports its module alone. Other packages add parts through the entry-point group `etude.parts`, whose entries map a path
such as `credit/mine` to a module.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from etude.core.errors import PartError, suggest

PACKAGE = Path(__file__).resolve().parent.parent
SHELVES = (
    "policies",
    "environments",
    "agents/loops",
    "agents/memory",
    "agents/teams",
    "scoring",
    "search",
    "curation",
    "credit",
    "objectives",
    "weights/merge",  # before the shelf that holds it: `shelf_of` takes the first that fits
    "weights",
    "synthesis",
    "evaluation/benchmarks",
)
T = TypeVar("T", bound=Callable[..., Any])


def part(thing: T) -> T:
    """Mark the one function or class of a module that its path names."""
    thing.__etude_part__ = True  # type: ignore[attr-defined]
    return thing


@dataclass(frozen=True)
class Argument:
    """One setting of a part, as its signature declares it."""

    name: str
    annotation: str
    default: Any = inspect.Parameter.empty
    help: str = ""

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class PartInfo:
    """What the source says of a part, read without importing it."""

    path: str
    title: str
    citation: str
    file: Path
    name: str
    arguments: dict[str, str] = field(default_factory=dict)
    """Argument -> its source text (`low: float = 0.2`), settings only: the data a part is called with is left out."""


def shelf_of(path: str) -> tuple[str, str]:
    """Split `agents/loops/native` into its shelf and its name.

    >>> shelf_of("agents/loops/native")
    ('agents/loops', 'native')
    """
    for shelf in SHELVES:
        if path.startswith(shelf + "/"):
            return shelf, path[len(shelf) + 1 :]
    raise PartError(f"no shelf in part path {path!r}; {suggest(path.split('/')[0], SHELVES)}")


def find(shelf: str) -> dict[str, PartInfo]:
    """Every part on a shelf by name, including those that other packages add. Imports no part."""
    if shelf not in SHELVES:
        raise PartError(f"no shelf {shelf!r}; {suggest(shelf, SHELVES)}")
    sources = {file.stem: file for file in sorted((PACKAGE / shelf).glob("*.py"))}
    for entry in _outside(tuple(sys.path)):
        if entry.name.rpartition("/")[0] == shelf:
            spec = importlib.util.find_spec(entry.value)
            if spec is not None and spec.origin:
                sources[entry.name[len(shelf) + 1 :]] = Path(spec.origin)
    found = {name: _scan(f"{shelf}/{name}", file) for name, file in sources.items()}
    return {name: info for name, info in found.items() if info is not None}


@functools.cache
def _outside(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Parts of other packages; path: what is looked through, which takes a hundredth of a second."""
    return tuple(entry_points(group="etude.parts"))


@functools.cache
def _scan(path: str, file: Path) -> PartInfo | None:
    module = ast.parse(file.read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and any(
            isinstance(d, ast.Name) and d.id == "part" for d in node.decorator_list
        ):
            doc = ast.get_docstring(module) or ast.get_docstring(node) or ""
            title = doc.split("\n", 1)[0].rstrip(".")
            link = re.search(r"^.*(arXiv:\S+|doi\.org\S+).*$", doc, re.MULTILINE)
            return PartInfo(path, title, link[0].strip() if link else "", file, node.name, _arguments(node))
    return None


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> dict[str, str]:
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if init is None:  # a dataclass: its annotated fields
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            written = {n.target.id: ast.unparse(n) for n in fields}  # type: ignore[union-attr]
            return {k: v for k, v in written.items() if "ClassVar" not in v and "init=False" not in v}
        positional, keyword = init.args.args[1:], init.args.kwonlyargs
    else:  # a function: positional arguments are its data, keyword-only ones its settings
        init, positional, keyword = node, [], node.args.kwonlyargs
    defaults = [None] * (len(init.args.args) - len(init.args.defaults)) + list(init.args.defaults)
    pairs = list(zip(positional, defaults[len(init.args.args) - len(positional) :], strict=True)) if positional else []
    pairs += list(zip(keyword, init.args.kw_defaults, strict=True))
    return {a.arg: ast.unparse(a) + (f" = {ast.unparse(d)}" if d is not None else "") for a, d in pairs}


@functools.cache
def load(path: str) -> Callable[..., Any]:
    """The part itself: `load("credit/rloo")` imports `etude.credit.rloo` and returns what it marks with `@part`."""
    shelf, name = shelf_of(path)
    available = find(shelf)
    if name not in available:
        hint = suggest(name, available)
        raise PartError(f"no part {path!r}; {hint}\n`etude parts {shelf}` lists them with their papers")
    info = available[name]
    if info.file.is_relative_to(PACKAGE):
        module = importlib.import_module("etude." + f"{shelf}/{name}".replace("/", "."))
    else:
        entry = next(e for e in _outside(tuple(sys.path)) if e.name == path)
        module = importlib.import_module(entry.value)
    return getattr(module, info.name)


def schema(path: str) -> dict[str, Argument]:
    """The settings of a part: a class's constructor arguments, or a function's keyword-only arguments.

    Help texts are read from the docstring's `name: text` lines, and from the string below a dataclass field.
    """
    thing = load(path)
    help_of = _argument_help(thing)
    settings = {}
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if inspect.isclass(thing) or parameter.kind is parameter.KEYWORD_ONLY:
            note = parameter.annotation
            text = note if isinstance(note, str) else inspect.formatannotation(note)
            settings[parameter.name] = Argument(
                parameter.name, text, parameter.default, help_of.get(parameter.name, "")
            )
    return settings


@functools.cache
def _argument_help(thing: Callable[..., Any]) -> dict[str, str]:
    doc = inspect.getdoc(thing) or ""
    found = dict(re.findall(r"^(\w+): (.+)$", doc, re.MULTILINE))
    if inspect.isclass(thing):
        body = ast.parse(inspect.cleandoc(inspect.getsource(thing))).body[0].body  # type: ignore[attr-defined]
        for node, below in itertools.pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[node.target.id] = str(below.value.value)  # type: ignore[union-attr]
    return found


def build(path: str, **settings: Any) -> Any:
    """A part ready for use: a class is instantiated, a function gets its keyword-only settings bound.

    Raises PartError for a setting that the part does not take, naming the closest one.
    """
    thing = load(path)
    allowed = schema(path)
    for key in settings:
        if key not in allowed:
            raise PartError(f"{path} takes no argument {key!r} (given {settings[key]!r}); {suggest(key, allowed)}")
    absent = [a.name for a in allowed.values() if a.required and a.name not in settings]
    if absent:
        raise PartError(f"{path} needs {', '.join(absent)}; `etude parts {path}` explains each")
    if inspect.isclass(thing):
        return thing(**settings)
    return functools.partial(thing, **settings) if settings else thing


class Shelf(ModuleType):
    """Makes `etude.credit.rloo` the part rather than the module that holds it.

    A shelf's `__init__` sets its own `__class__` to this. Python binds a submodule on its package after import; the
    part takes that name instead, so `from etude.credit import rloo` and `etude.credit.rloo(...)` both mean the part.
    """

    def __getattr__(self, name: str) -> Any:
        shelf = self.__name__.removeprefix("etude.").replace(".", "/")
        if f"{shelf}/{name}" in SHELVES:
            return importlib.import_module(f"{self.__name__}.{name}")
        if name.startswith("_") or name not in find(shelf):
            raise AttributeError(f"{self.__name__} has no part {name!r}")
        return load(f"{shelf}/{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType):
            marked = [
                v
                for v in vars(value).values()
                if getattr(v, "__etude_part__", False) and v.__module__ == value.__name__
            ]
            value = marked[0] if marked else value
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(find(self.__name__.removeprefix("etude.").replace(".", "/")))


def as_shelf(package: str) -> None:
    """Called by a shelf's `__init__`: `as_shelf(__name__)`."""
    sys.modules[package].__class__ = Shelf
