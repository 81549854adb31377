"""What loading a model shows: nothing, since etude shows its own progress."""

from ..engine_fixtures import tiny_model_directory  # noqa: F401


def test_loading_shows_no_bar_and_leaves_those_of_others(tiny_model_directory, capsys):  # noqa: F811
    from transformers.utils import logging

    from etude.policies.local import local

    local(str(tiny_model_directory))
    assert capsys.readouterr().err == ""
    list(logging.tqdm([1], desc="theirs"))
    assert "theirs: 100%" in capsys.readouterr().err
