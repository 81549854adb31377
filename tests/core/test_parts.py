"""Parts are found by path, loaded when asked for, and explained from their source."""

import inspect
import subprocess
import sys
from textwrap import dedent

import pytest

from etude.core.errors import PartError
from etude.core.parts import build, find, load, schema, shelf_of

MODULES = {
    "scale": '''
        """Scaled credit.

        Doe 2031, "Scales", arXiv:2031.00001
        """
        import json
        from etude.core.parts import part

        helper = json

        @part
        def scale(score_G, *, by: float = 2.0, name: str):
            """Weights.

            by: factor, no unit
            """
            return [by * s for s in score_G]
        ''',
    "stateful": '''
        from dataclasses import dataclass, field
        from etude.core.parts import part

        @part
        @dataclass
        class stateful:
            """Counts episodes."""

            start: int
            """Where to begin."""
            seen: dict = field(default_factory=dict)
            _hidden = 0
        ''',
    "built": '''
        from etude.core.parts import part

        @part
        class built:
            """A class with a constructor."""

            def __init__(self, size: int, *, depth: int = 3, **_):
                self.size = size
                self.depth = depth
        ''',
    "plain": '"""Holds no part."""\nraise RuntimeError("listing must not import this")\n',
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """An installed package that adds parts to the credit shelf."""
    package = tmp_path / "outside_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, source in MODULES.items():
        (package / f"{name}.py").write_text(dedent(source).lstrip())
    info = tmp_path / "outside_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-parts\nVersion: 1.0\n")
    entries = [f"credit/{name} = outside_parts.{name}" for name in MODULES]
    (info / "entry_points.txt").write_text("\n".join(["[etude.parts]", *entries, "credit/gone = outside_parts.gone"]))
    monkeypatch.syspath_prepend(str(tmp_path))
    load.cache_clear()
    yield tmp_path
    load.cache_clear()
    for name in [m for m in sys.modules if m.split(".")[0] == "outside_parts"]:
        del sys.modules[name]


def test_listing_reads_the_source_and_imports_nothing(outside):
    found = find("credit")
    assert {"scale", "stateful", "built"} <= set(found)
    assert not {"plain", "gone"} & set(found)
    assert not [m for m in sys.modules if m.startswith("outside_parts.")]
    scale = found["scale"]
    assert (scale.path, scale.title, scale.name) == ("credit/scale", "Scaled credit", "scale")
    assert scale.citation == 'Doe 2031, "Scales", arXiv:2031.00001'
    assert scale.arguments == {"by": "by: float = 2.0", "name": "name: str"}  # not its data
    assert found["stateful"].arguments["start"] == "start: int"
    assert list(found["stateful"].arguments) == ["start", "seen"]
    assert found["built"].arguments == {"size": "size: int", "depth": "depth: int = 3"}


def test_loading_imports_that_module_alone(outside):
    scale = load("credit/scale")
    assert scale([1.0, 2.0], name="x") == [2.0, 4.0]
    assert [m for m in sys.modules if m.startswith("outside_parts.")] == ["outside_parts.scale"]
    assert load("credit/scale") is scale


def test_the_schema_comes_from_signature_and_docstring(outside):
    by, name = schema("credit/scale").values()
    assert (by.name, by.annotation, by.default, by.help, by.required) == ("by", "float", 2.0, "factor, no unit", False)
    assert name.required
    assert name.default is inspect.Parameter.empty
    start, seen = schema("credit/stateful").values()
    assert (start.help, start.required, seen.required) == ("Where to begin.", True, False)
    assert list(schema("credit/built")) == ["size", "depth"]


def test_building_binds_settings(outside):
    assert build("credit/scale", by=3.0, name="x")([1.0]) == [3.0]
    built = build("credit/built", size=2, depth=5)
    assert (built.size, built.depth) == (2, 5)
    assert build("credit/stateful", start=4).seen == {}


def test_a_wrong_argument_names_the_closest_and_the_value(outside):
    with pytest.raises(PartError) as refused:
        build("credit/built", size=2, dept=5)
    assert str(refused.value) == (
        "credit/built takes no argument 'dept' (given 5); did you mean 'depth'? There are: depth, size"
    )


def test_an_absent_argument_is_named(outside):
    with pytest.raises(PartError, match="credit/scale needs name; `etude parts credit/scale`"):
        build("credit/scale")


def test_an_unknown_part_names_the_closest_and_lists_the_shelf(outside):
    with pytest.raises(PartError) as refused:
        load("credit/scael")
    text = str(refused.value)
    assert text.startswith("no part 'credit/scael'; did you mean 'scale'? There are: ")
    assert "stateful" in text
    assert "`etude parts credit` lists them" in text


def test_an_unknown_shelf_names_the_closest():
    with pytest.raises(PartError, match="no shelf in part path 'scorin/exact'; did you mean 'scoring'"):
        shelf_of("scorin/exact")
    with pytest.raises(PartError, match="did you mean 'scoring'"):
        find("scorin")
    with pytest.raises(PartError, match="no shelf 'agents'"):
        find("agents")  # its shelves are agents/loops and so on


def test_nested_shelves_are_split_at_the_right_place():
    assert shelf_of("agents/loops/native") == ("agents/loops", "native")
    assert shelf_of("evaluation/benchmarks/tools") == ("evaluation/benchmarks", "tools")
    assert shelf_of("weights/merge/ties") == ("weights/merge", "ties")
    assert shelf_of("weights/lora") == ("weights", "lora")


def test_a_shelf_in_a_shelf_keeps_its_parts_to_itself(outside):
    (outside / "outside_parts-1.0.dist-info" / "entry_points.txt").write_text(
        "[etude.parts]\nweights/merge/scale = outside_parts.scale\n"
    )
    assert "scale" in find("weights/merge")
    assert not [name for name in find("weights") if "scale" in name or "ties" in name]
    code = "import etude; print(etude.weights.merge.ties.__name__, etude.weights.full.__name__)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown == "ties full\n"


def test_a_shelf_module_gives_its_parts_and_says_what_it_has(outside):
    import etude.credit

    assert etude.credit.stateful is load("credit/stateful")
    assert "scale" in dir(etude.credit)
    with pytest.raises(AttributeError, match=r"etude\.credit has no part 'nothing'"):
        _ = etude.credit.nothing


def test_a_part_takes_the_place_of_its_module_in_either_order():
    code = """
        import sys
        import etude.scoring
        assert 'etude.scoring.exact' not in sys.modules, 'a shelf must not import its parts'
        part = etude.scoring.exact
        import etude.scoring.f1
        from etude.scoring.f1 import f1
        from etude.scoring import exact
        assert part is exact and etude.scoring.f1 is f1 and isinstance(f1, type)
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True)
