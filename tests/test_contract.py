"""What holds for every part, whichever there are: nothing is listed here, so nothing can be forgotten."""

import importlib
import subprocess
import sys

import pytest

from etude.core.errors import PartError
from etude.core.parts import PACKAGE, SHELVES, build, find, load, schema, shelf_of

PARTS = {info.path: info for shelf in SHELVES for info in find(shelf).values()}
every_part = pytest.mark.parametrize("path", PARTS)


def test_there_are_parts():
    assert len(PARTS) >= 8


@every_part
def test_it_says_what_it_is(path):
    assert PARTS[path].title, f"{path}: {PARTS[path].file} has no docstring; its first line is the part's title"
    assert load(path).__doc__, f"{path}: the part itself has no docstring"


@every_part
def test_the_path_is_the_name(path):
    info = PARTS[path]
    named = path.rsplit("/", 1)[1].replace("_", "")
    assert info.name.replace("_", "").lower() == named, f"{path} marks {info.name}: a part is named as its file"
    assert load(path).__name__ == info.name


@every_part
def test_its_shelf_gives_it(path):
    if not PARTS[path].file.is_relative_to(PACKAGE):
        pytest.skip("from another package")
    shelf, name = shelf_of(path)
    assert getattr(importlib.import_module("etude." + shelf.replace("/", ".")), name) is load(path)


@every_part
def test_the_source_and_the_signature_agree_on_its_settings(path):
    declared, actual = PARTS[path].arguments, schema(path)
    assert list(declared) == list(actual)
    for name, argument in actual.items():
        assert ("=" not in declared[name]) == argument.required, declared[name]


@every_part
def test_every_setting_has_a_type(path):
    untyped = [name for name, text in PARTS[path].arguments.items() if ":" not in text]
    assert not untyped, f"{path}: {untyped} have no annotation, which help and recipes are made from"


@every_part
def test_an_unknown_argument_is_refused_and_the_closest_named(path):
    names = sorted(schema(path))
    wrong = (names[0] if names else "anything") + "_"
    with pytest.raises(PartError) as refused:
        build(path, **{wrong: 12345})
    text = str(refused.value)
    assert f"{path} takes no argument {wrong!r} (given 12345)" in text
    assert (f"did you mean {names[0]!r}?" if names else "There are none.") in text
    for name in names:
        assert name in text


@every_part
def test_a_missing_argument_is_refused_and_named(path):
    required = [argument.name for argument in schema(path).values() if argument.required]
    if not required:
        pytest.skip("needs none")
    with pytest.raises(PartError, match=f"{path} needs {', '.join(required)}"):
        build(path)


@every_part
def test_one_file_holds_one_part(path):
    marks = [line for line in PARTS[path].file.read_text(encoding="utf-8").splitlines() if line.strip() == "@part"]
    assert len(marks) == 1


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_listing_all_parts_imports_no_heavy_library_and_no_part():
    loaded = fresh(
        "import sys; from etude.core.parts import SHELVES, find\n"
        "print(sum(len(find(s)) for s in SHELVES), *sys.modules)"
    ).split()
    assert int(loaded[0]) == len(PARTS)
    assert not {"torch", "transformers", "datasets", "pyarrow"} & set(loaded)
    parts = {"etude." + path.replace("/", ".") for path, info in PARTS.items() if info.file.is_relative_to(PACKAGE)}
    assert not parts & set(loaded)


def test_the_ground_imports_without_heavy_libraries():
    loaded = fresh("import sys, etude.protocols, etude.trajectory, etude.core.parts; print(*sys.modules)").split()
    assert not {"torch", "transformers"} & set(loaded)


@pytest.mark.parametrize("shelf", ["environments", "scoring"])
def test_worlds_and_scorers_load_without_torch(shelf):
    loaded = fresh(
        "import sys; from etude.core.parts import find, load\n"
        f"[load(f'{shelf}/{{name}}') for name in find({shelf!r})]\n"
        "print(*sys.modules)"
    ).split()
    assert not {"torch", "transformers"} & set(loaded)


@pytest.mark.parametrize("path", [path for path in PARTS if path.startswith("scoring/")])
def test_a_scorer_declares_its_range(path):
    if any(argument.required for argument in schema(path).values()):
        assert hasattr(load(path), "range")
    else:
        low, high = build(path).range
        assert low < high
