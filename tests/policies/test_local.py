"""What loading a model shows: nothing, since etude shows its own progress. That its attention stays as it must be."""

import numpy as np
import pytest

from etude.core.errors import PolicyError
from etude.trajectory.forest import forest

from ..engine_fixtures import load_policy, tiny_model_directory  # noqa: F401


def test_loading_shows_no_bar_and_leaves_those_of_others(tiny_model_directory, capsys):  # noqa: F811
    from transformers.utils import logging

    from etude.policies.local import local

    local(str(tiny_model_directory))
    assert capsys.readouterr().err == ""
    list(logging.tqdm([1], desc="theirs"))
    assert "theirs: 100%" in capsys.readouterr().err


def test_another_attention_is_refused_where_rows_would_see_each_other(load_policy):  # noqa: F811
    policy = load_policy()
    ids, mask = np.array([1, 2, 3], np.int32), np.array([False, True, True])
    policy.logprob(forest([ids], 8), [mask])
    policy.model.set_attn_implementation("eager")
    with pytest.raises(PolicyError, match=r"'eager'; rows are read as trees"):
        policy.logprob(forest([ids], 8), [mask])
