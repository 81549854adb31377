"""credit/outcome: the score itself, less a constant."""

import numpy as np
import pytest

from etude.core import parts
from etude.core.errors import CreditError


def test_weight_is_the_score_less_the_baseline():
    weight_G = parts.build("credit/outcome", baseline=0.25)(np.array([1.0, 0.0, np.nan, 0.25]))
    np.testing.assert_array_equal(weight_G, [0.75, -0.25, np.nan, 0.0])


def test_no_baseline_leaves_scores_alone():
    np.testing.assert_array_equal(parts.build("credit/outcome")(np.array([0.3])), [0.3])


def test_infinite_score_is_refused_with_its_place():
    with pytest.raises(CreditError, match="inf of episode 1"):
        parts.build("credit/outcome")(np.array([0.0, np.inf]))
