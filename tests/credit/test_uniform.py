import numpy as np

from etude.credit import uniform


def test_scored_is_one_and_unscored_stays_unscored():
    np.testing.assert_array_equal(uniform(np.array([0.0, np.nan, -3.0, np.inf])), [1.0, np.nan, 1.0, 1.0])
