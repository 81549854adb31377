"""curation/where: keep what carries a value."""

from etude import curation
from etude.trajectory import Trajectory


def test_meta_and_own_fields_are_read():
    rows = [
        Trajectory("a", "t1", meta={"domain": "hotel"}),
        Trajectory("b", "t2", meta={"domain": "bank"}),
        Trajectory("c", "t3"),
    ]
    assert [t.id for t in curation.where(rows, key="domain", values=["hotel", "zoo"])] == ["a"]
    assert [t.id for t in curation.where(rows, key="task", values=["t3", "t1"])] == ["a", "c"]
    assert [t.id for t in curation.where(rows, key="domain", values=[None])] == ["c"]
