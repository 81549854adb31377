"""credit/regression: what it refuses; its weights are in tests/curation/test_introspect.py."""

import pytest

from etude import credit
from etude.core.errors import CreditError
from etude.trajectory import Episode, Message, Trajectory


def scored(*scores):
    t = Trajectory("t", "t")
    t.episodes = [Episode(t.add(Message("assistant", "x"), None), score=s) for s in scores]
    return t


def test_refusals():
    with pytest.raises(CreditError, match="tau=0 must be above 0"):
        credit.regression([scored(1.0)], tau=0)
    with pytest.raises(CreditError, match="score inf of episode 1 is infinite"):
        credit.regression([scored(1.0, float("inf"))])


def test_without_a_score_nothing_is_weighed():
    t = scored(None, None)
    credit.regression([t])
    assert all(n.weight_T is None for n in t.nodes)
