"""Recipes: a run as flat YAML, checked against the signatures that will receive it.

    system: 56
    policy: tiny
    environment: desk
    environment.difficulty: 3
    stages:
      - collect: {by: expert, episodes: 200}
      - practise: {steps: 100, credit: group, scoring: [environment, progress]}

A part is written as its name (`rloo`) or, with settings, as `{name: {setting: value}}`; a dotted key sets one setting
of the part that its first half names. The signature of a stage function is its schema: keyword-only arguments are the
options, annotations their types, and `Annotated[str | dict, PartName("credit")]` says that a value names a part.

Nothing here imports a stage's or a model's libraries: a recipe is data.
"""

import copy
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import yaml

from etude.core import parts
from etude.core.errors import PartError, RecipeError

PARTS = {"policy": "policies", "environment": "environments", "agent": "agents/loops", "weights": "weights"}
"""Top-level keys that hold a part, and its shelf."""
COLLABORATORS = {"Policy": "policies", "Environment": "environments"}
"""Protocols that an argument of a part may be typed by, and the shelf whose parts a recipe may write there."""
MODELS = ("smollm2", "tiny")
"""Short names that `policies/local` knows: `policy: tiny` means `policy: {local: {model: tiny}}`; so does a path."""
DEFAULTS: dict[str, Any] = {
    "name": "",
    "system": None,
    "title": "",
    "tags": [],
    "departures": [],
    "policy": None,
    "environment": None,
    "agent": "native",
    "weights": "full",
    "seed": 0,
    "scale": {},
    "stages": [],
    "evaluate": {},
    "evidence": {},
}
TYPES: dict[str, Any] = {
    "system": int | None,
    "title": str,
    "tags": list[str],
    "departures": list[str],
    "seed": int,
    "scale": dict,
    "stages": list,
    "evaluate": dict,
    "evidence": dict,
}
Stages = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class PartName:
    """In an `Annotated` option of a stage: the value, or each item of the list, names a part on this shelf."""

    shelf: str


@dataclass(frozen=True)
class Recipe:
    """One recipe as written, with its overrides applied and its defaults not yet filled in."""

    name: str
    file: Path
    data: dict[str, Any]
    """Every top-level key; each part as `{name: settings}`, each stage as `{name: options}`."""


@dataclass(frozen=True)
class _Setting:
    """What a stage option or a part setting may hold."""

    type: Any
    default: Any
    shelf: str = ""


SCALE = {
    "learner": _Setting(Literal["data", "shard"], "data"),  # what each process holds, where there are several
    "memory": _Setting(float | None, None),  # GiB for training in each process; None: what is free
    "workers": _Setting(int, 0),  # processes that play, through Ray; 0 plays in the learner's own
}
"""What `scale` may hold: how far a run spreads over processes and machines."""


# -- reading -------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number (1.1 wants a dot) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for i, (key, (key_node, _)) in enumerate(zip(keys, node.value, strict=True)):
            if key in keys[:i]:
                raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as the same value."""


for _side in (_Loader, _Dumper):
    _float = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _float, list("-+0123456789"))


def dump(data: Mapping[str, Any]) -> str:
    """YAML text of a resolved recipe, keys in their order."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def shipped(folder: str) -> Path:
    """A folder that belongs to etude, such as `recipes`: inside an installed package, or at the root of a checkout."""
    inside = parts.PACKAGE / folder
    return inside if inside.is_dir() else parts.PACKAGE.parent.parent / folder


def files() -> dict[str, Path]:
    """Every recipe that comes with etude, by name."""
    return {file.stem: file for file in sorted(shipped("recipes").rglob("*.yaml"))}


def parse(text: str) -> Any:
    """What a YAML text says."""
    return yaml.load(text, _Loader)


def read(file: Path) -> Any:
    """The YAML of one file. Raises RecipeError, with the line, when it cannot be read."""
    try:
        return parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {str(file)!r} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"recipe {file.name!r}{line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {file.name!r} is not YAML: {error}") from None


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by its name, its `room/name` or its path, with `key=value` overrides applied in order.

    Raises RecipeError for a recipe that is not there and for a key that no recipe has.
    """
    file = _find(name_or_path)
    written = read(file)
    if not isinstance(written, dict):
        raise RecipeError(f"recipe {file.name!r}: a recipe is a mapping of keys, not {type(written).__name__}")
    data = copy.deepcopy(DEFAULTS)
    recipe = Recipe(str(written.get("name") or file.stem), file, data)
    dotted = {str(key): value for key, value in written.items() if _keys(str(key))[1:]}
    for key, value in written.items():
        if str(key) not in dotted:
            _set(recipe, str(key), value)
    for key, value in dotted.items():
        _set(recipe, key, value)
    data["name"] = recipe.name
    for key in PARTS:
        if isinstance(data[key], str):
            data[key] = {data[key]: {}}
    for override in overrides:
        _override(recipe, override)
    return recipe


def _find(name_or_path: str | Path) -> Path:
    name, there = str(name_or_path), files()
    if Path(name).is_file():
        return Path(name)
    if name in there:
        return there[name]
    by_room = shipped("recipes") / f"{name}.yaml"
    if by_room.is_file():
        return by_room
    raise RecipeError(f"no recipe {name!r}\n{_closest(name, there)}\na path to a YAML file works as well")


def assign(recipe: Recipe, path: str, value: Any) -> None:
    """Set one key of a recipe, as the override `path=value` does."""
    _set(recipe, path, value)


def _override(recipe: Recipe, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"{override!r} is not an override; write key=value, such as environment.difficulty=3")
    try:
        value = parse(text)
    except yaml.YAMLError:
        hint = "quote it, or write [a, b] or {key: value}"
        raise RecipeError(f"override {override!r}: {text!r} is not YAML\n{hint}") from None
    _set(recipe, path, value)


def _keys(path: str) -> list[str]:
    return [key for key in re.split(r"[.\[\]]", path) if key]


def _set(recipe: Recipe, path: str, value: Any) -> None:
    """Put a value at a dotted or indexed path. Options that no signature has are found later, by `resolve`."""
    keys, data = _keys(path), recipe.data
    if not keys or keys[0] not in DEFAULTS:
        raise _error(recipe, path, "no such key", _closest(keys[0] if keys else path, DEFAULTS))
    head, *rest = keys
    if not rest:
        data[head] = _top(recipe, head, value)
    elif head == "stages":
        data[head] = _top(recipe, head, data[head])
        if not rest[0].isdigit() or int(rest[0]) >= len(data[head]):
            there = ", ".join(f"{i} {next(iter(stage))}" for i, stage in enumerate(data[head]))
            raise _error(recipe, path, f"no stage {rest[0]!r}", f"There are: {there}" if there else "There are none.")
        if not rest[1:]:
            data[head][int(rest[0])] = _top(recipe, head, [value])[0]
        else:
            _assign(recipe, path, data[head], rest, value)
    elif head in PARTS:
        if data[head] is None:
            raise _error(recipe, path, f"there is no {head} to set {rest[0]!r} of", f"name one first: {head}=NAME")
        _assign(recipe, path, data, keys, value)
    elif isinstance(data[head], dict):
        _assign(recipe, path, data[head], rest, value)
    else:
        raise _error(recipe, path, f"{head} has no keys of its own", f"write {head}=VALUE")


def _top(recipe: Recipe, key: str, value: Any) -> Any:
    """A top-level value in its one form: parts as `{name: settings}`, stages as a list of `{name: options}`."""
    if key in PARTS and value is not None:
        name, settings = _part(recipe, key, value)
        before = recipe.data[key]
        # The same part named again keeps its settings; another part has settings of its own.
        return before if not settings and isinstance(before, dict) and name in before else {name: settings}
    if key != "stages":
        return value
    if not isinstance(value, list):
        raise _error(recipe, key, f"{value!r} is not a list", "each stage is one item:  - train: {epochs: 2}")
    stages = []
    for i, stage in enumerate(value):
        entry = {stage: {}} if isinstance(stage, str) else stage
        if not isinstance(entry, dict) or len(entry) != 1 or not isinstance(next(iter(entry.values())) or {}, dict):
            raise _error(recipe, f"stages[{i}]", f"{stage!r} is not one stage", "write  - train: {epochs: 2}")
        stages.append({str(name): options or {} for name, options in entry.items()})
    return stages


def _assign(recipe: Recipe, path: str, holder: Any, keys: list[str], value: Any) -> None:
    """Walk down to the last key and set it; the name of a part or of a stage may be left out on the way."""
    for i, key in enumerate(keys):
        at: Any = int(key) if isinstance(holder, list) and key.isdigit() else key
        if i == len(keys) - 1 and isinstance(holder, dict):
            holder[at] = value
            return
        inside = isinstance(at, int) and at < len(holder) if isinstance(holder, list) else at in holder
        if not inside:
            there = [str(n) for n in range(len(holder))] if isinstance(holder, list) else list(holder)
            raise _error(recipe, path, f"nothing is at {key!r}", _closest(key, there))
        if i == len(keys) - 1:
            holder[at] = value
            return
        if isinstance(holder[at], str):
            holder[at] = {holder[at]: {}}
        if not isinstance(holder[at], (dict, list)):
            raise _error(recipe, path, f"{key!r} holds {holder[at]!r}, which has no keys of its own")
        holder = holder[at]
        if isinstance(holder, dict) and len(holder) == 1:
            (name, inner), following = next(iter(holder.items())), keys[i + 1]
            if following != name and isinstance(inner or {}, dict):
                holder[name] = inner or {}
                holder = holder[name]


# -- checking and filling in ---------------------------------------------------------------------------------------


def validate(recipe: Recipe, stages: Stages) -> None:
    """Check every key, stage, option and part of a recipe.

    stages: stage name -> the function that runs it; its keyword-only arguments are the options. The functions named
    `evaluate` and `evidence`, where given, are the schema of the top-level mappings of those names.
    Raises RecipeError naming the file, the place, the value and what it could have been.
    """
    resolve(recipe, stages)


def resolve(recipe: Recipe, stages: Stages) -> dict[str, Any]:
    """The recipe with every default filled in: what `run.yaml` holds. Resolving that again changes nothing.

    Defaults that are not plain data (a function, an array) are left to the code. Raises as `validate` does.
    """
    data = recipe.data
    for key, type_ in TYPES.items():
        if not _fits(data[key], type_):
            raise _error(recipe, key, f"{data[key]!r} is not {_name_of(type_)}")
    filled = {key: copy.deepcopy(data[key]) for key in DEFAULTS}
    for key, shelf in PARTS.items():
        if data[key] is not None:
            filled[key] = _fill_part(recipe, key, shelf, data[key])
    filled["scale"] = _fill(recipe, "scale", "scale", SCALE, data["scale"])
    if filled["scale"]["workers"] < 0:
        hint = "workers: 0 plays in this process, workers: 4 in four others"
        raise _error(recipe, "scale.workers", f"{filled['scale']['workers']} is below 0", hint)
    for i, stage in enumerate(data["stages"]):
        (name, options), place = next(iter(stage.items())), f"stages[{i}]"
        if name not in stages:
            raise _error(recipe, place, f"no stage {name!r}", _closest(name, stages))
        filled["stages"][i] = {name: _fill(recipe, place, name, _signature(stages[name]), options)}
    for key in ("evaluate", "evidence"):
        if key in stages and (key == "evaluate" or data[key]):
            filled[key] = _fill(recipe, key, key, _signature(stages[key]), data[key])
    return filled


def baseline(recipe: Recipe) -> Recipe:
    """The recipe that `evidence.against` describes; the first, where it describes several. See `baselines`."""
    return next(iter(baselines(recipe).values()))


def baselines(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes that `evidence.against` describes, by label: what the measured recipe has to beat.

    `against` maps labels to changes, or holds the changes of a single one, labelled `baseline`. A change's
    key is a top-level key, a path such as `stages[2].credit`, or the bare name of an option, which is then changed in
    every stage that sets it. Raises RecipeError where a bare name is set by no stage.
    """
    against = recipe.data["evidence"].get("against", {})
    if not isinstance(against, dict) or not against:
        hint = "write  against: {scoring: [environment]}"
        raise _error(recipe, "evidence.against", f"{against!r} changes nothing", hint)
    options = {name for stage in recipe.data["stages"] for given in stage.values() for name in given}

    def changes(key: Any) -> bool:
        return key in DEFAULTS or key in options or len(_keys(str(key))) > 1

    if any(map(changes, against)) or not all(isinstance(value, dict) and value for value in against.values()):
        return {"baseline": _changed(recipe, "evidence.against", against, options)}
    return {
        str(label): _changed(recipe, f"evidence.against.{label}", value, options) for label, value in against.items()
    }


def _changed(recipe: Recipe, place: str, changes: Mapping[str, Any], options: Iterable[str]) -> Recipe:
    other = Recipe(recipe.name, recipe.file, copy.deepcopy(recipe.data))
    for key, value in changes.items():
        if key in DEFAULTS or len(_keys(key)) > 1:
            _set(other, key, copy.deepcopy(value))
            continue
        setting = [given for stage in other.data["stages"] for given in stage.values() if key in given]
        if not setting:
            raise _error(recipe, f"{place}.{key}", f"no stage sets {key!r}", _closest(key, options))
        for given in setting:
            given[key] = copy.deepcopy(value)
    return other


def part_of(value: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a part as a recipe writes it.

    >>> part_of("rloo"), part_of({"group": {"scale": False}})
    (('rloo', {}), ('group', {'scale': False}))
    """
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        name, settings = next(iter(value.items()))
        if isinstance(name, str) and isinstance(settings or {}, Mapping):
            return name, dict(settings or {})
    raise RecipeError(f"{value!r} is not a part; write its name, or {{name: {{setting: value}}}}")


def build(shelf: str, value: str | Mapping[str, Any], **collaborators: Any) -> Any:
    """The part that a recipe's value names, ready for use, with the parts that its settings name.

    collaborators: settings that only code can give.
    """
    name, settings = _on_shelf(shelf, *part_of(value))
    for argument in parts.schema(f"{shelf}/{name}").values():
        inner, written = _shelf_of(argument), settings.get(argument.name)
        if inner and isinstance(written, (str, Mapping)):
            settings[argument.name] = build(inner, written)
    return parts.build(f"{shelf}/{name}", **settings, **collaborators)


def _shelf_of(argument: parts.Argument) -> str:
    """The shelf that a part's argument takes a part from, where it is typed by a protocol."""
    return COLLABORATORS.get(argument.annotation.removesuffix(" | None").rpartition(".")[2], "")


def check_settings(path: str, settings: Mapping[str, Any]) -> None:
    """Raises PartError for a setting whose value is not of the type that the part's signature gives it."""
    for argument in parts.schema(path).values():
        type_ = _evaluate(argument.annotation, _DATA_TYPES)
        if argument.name in settings and not _fits(settings[argument.name], type_):
            raise PartError(f"{path}, {argument.name}: {settings[argument.name]!r} is not {_name_of(type_)}")


def _on_shelf(shelf: str, name: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name without its shelf; a model's short name or path becomes the policy that loads it."""
    name = name.removeprefix(shelf + "/")
    is_model = name in MODELS or "/" in name or Path(name).exists()
    if shelf == "policies" and is_model and name not in parts.find(shelf):
        return "local", {"model": name, **settings}
    return name, settings


def _part(recipe: Recipe, place: str, value: Any) -> tuple[str, dict[str, Any]]:
    try:
        return part_of(value)
    except RecipeError as error:
        raise _error(recipe, place, str(error)) from None


def _fill_part(recipe: Recipe, place: str, shelf: str, value: Any) -> dict[str, Any]:
    name, settings = _on_shelf(shelf, *_part(recipe, place, value))
    there = [*parts.find(shelf), *(MODELS if shelf == "policies" else ())]
    if name not in there:
        hint = _closest(name, there, f"{shelf}/") + f"\netude parts {shelf}   lists them with their papers"
        raise _error(recipe, place, f"no part '{shelf}/{name}'", hint)
    try:
        arguments = parts.schema(f"{shelf}/{name}").values()
    except PartError as error:
        raise _error(recipe, place, str(error)) from None
    schema = {a.name: _Setting(_evaluate(a.annotation, _DATA_TYPES), a.default, _shelf_of(a)) for a in arguments}
    return {name: _fill(recipe, place, f"{shelf}/{name}", schema, settings)}


def _fill(
    recipe: Recipe, place: str, what: str, schema: Mapping[str, _Setting], options: Mapping[str, Any]
) -> dict[str, Any]:
    for name, value in options.items():
        if name not in schema:
            problem = f"{what} takes no {name!r} (given {value!r})"
            raise _error(recipe, f"{place}.{name}", problem, _closest(str(name), schema))
    filled: dict[str, Any] = {}
    for name, setting in schema.items():
        here = f"{place}.{name}"
        # What is not plain data (a policy, a model) cannot be written in a recipe: the code gives it.
        if name not in options and setting.default is inspect.Parameter.empty:
            if setting.type is not Any or setting.shelf:
                wanted = f"a part of {setting.shelf}" if setting.shelf else _name_of(setting.type)
                raise _error(recipe, place, f"{what} needs {name!r}", f"{name}: {wanted}")
            continue
        value = options.get(name, setting.default)
        if name in options and not _fits(value, setting.type):
            choices = _choices(setting.type)
            hint = _closest(str(value), choices) if choices else f"{name}: {_name_of(setting.type)}"
            raise _error(recipe, here, f"{value!r} is not {_name_of(setting.type)}", hint)
        if setting.shelf and value is not None and value != {}:
            value = (
                [_fill_part(recipe, f"{here}[{i}]", setting.shelf, item) for i, item in enumerate(value)]
                if isinstance(value, (list, tuple))
                else _fill_part(recipe, here, setting.shelf, value)
            )
        if _is_data(value):
            filled[name] = copy.deepcopy(list(value) if isinstance(value, tuple) else value)
    return filled


def _signature(function: Callable[..., Any]) -> dict[str, _Setting]:
    schema = {}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for argument in inspect.signature(function).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY:
            type_ = _evaluate(argument.annotation, names)
            shelves = [m.shelf for m in getattr(type_, "__metadata__", ()) if isinstance(m, PartName)]
            schema[argument.name] = _Setting(type_, argument.default, shelves[0] if shelves else "")
    return schema


_DATA_TYPES = {t.__name__: t for t in (int, float, bool, str, list, dict, tuple)} | {
    "Any": Any, "Literal": Literal, "Annotated": Annotated, "Sequence": Sequence, "Mapping": Mapping, "None": None,
}  # fmt: skip


def _evaluate(annotation: Any, names: Mapping[str, Any]) -> Any:
    """The type that an annotation means; Any where it names something that is not plain data."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {"__builtins__": {}} | _DATA_TYPES | dict(names))
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any


def _fits(value: Any, type_: Any) -> bool:
    origin, inner = typing.get_origin(type_), typing.get_args(type_)
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if type_ is None or type_ is type(None):
        return value is None
    base = origin or type_
    if base in (list, tuple, Sequence) or base is typing.get_origin(Sequence[int]):
        items = [t for t in inner if t is not Ellipsis]
        each = items[0] if items and (base is not tuple or (len(inner) == 2 and inner[1] is Ellipsis)) else Any
        return isinstance(value, (list, tuple)) and all(_fits(item, each) for item in value)
    if base in (dict, Mapping):
        return isinstance(value, dict)
    if base is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if base is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if base in (bool, str):
        return isinstance(value, base)
    return True


def _choices(type_: Any) -> list[str]:
    if typing.get_origin(type_) is Literal:
        return [str(choice) for choice in typing.get_args(type_)]
    return [choice for inner in typing.get_args(type_) for choice in _choices(inner)]


def _is_data(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_data(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_data(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


# -- messages ------------------------------------------------------------------------------------------------------


def _name_of(type_: Any) -> str:
    if typing.get_origin(type_) is Annotated:
        type_ = typing.get_args(type_)[0]
    return inspect.formatannotation(type_).replace("typing.", "").replace("collections.abc.", "")


def _closest(value: str, allowed: Iterable[str], prefix: str = "") -> str:
    names = list(allowed)
    if not names:
        return "There are none."
    there = f"There are: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    return f"did you mean {prefix + close[0]!r}?  {there}" if close else there


def _error(recipe: Recipe, place: str, problem: str, hint: str = "") -> RecipeError:
    return RecipeError(f"recipe {recipe.file.name!r}, {place}: {problem}" + (f"\n{hint}" if hint else ""))
