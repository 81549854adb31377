"""credit/preference: the best and the worst of a group."""

import numpy as np
import pytest

from etude.core import parts
from etude.core.errors import CreditError

preference = parts.load("credit/preference")
NAN = np.nan


@pytest.mark.parametrize(
    ("score_G", "weight_G"),
    [
        ([0.2, 1.0, 0.0, 0.5], [NAN, 1, -1, NAN]),
        ([1.0, 1.0, 0.0, 0.0, 0.5], [1, 1, -1, -1, NAN]),
        ([NAN, 3.0, -2.0], [NAN, 1, -1]),
        ([0.1, 0.1, 0.1], [NAN] * 3),
        ([1.0, NAN], [NAN] * 2),
        ([NAN, NAN], [NAN] * 2),
    ],
)
def test_by_hand(score_G, weight_G):
    np.testing.assert_array_equal(preference(np.array(score_G)), weight_G)


def test_group_of_one_is_refused():
    with pytest.raises(CreditError, match=r"credit/preference compares.*was given 1"):
        preference(np.array([1.0]))
