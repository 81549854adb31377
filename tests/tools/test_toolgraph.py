"""tools/toolgraph: tools whose parameters are alike are of one domain."""

import numpy as np

from etude.tools.toolgraph import by_words, communities

TOOLS = ["guest phone", "lamp price", "guest booking", "lamp colour price", "booking room price", "stars"]


def test_rare_words_join_and_common_ones_do_not():
    assert communities(TOOLS, threshold=0.2) == [[0, 2, 4], [1, 3], [5]]


def test_the_threshold_cuts_edges():
    assert communities(TOOLS, threshold=1.0) == [[n] for n in range(len(TOOLS))]


def test_a_word_that_all_have_weighs_nothing():
    rows_ND = by_words(["a b", "a c", "a"])
    assert np.allclose(rows_ND @ rows_ND.T, np.diag([1, 1, 0]))
