"""curation/feedback: the verdict in the request."""

import itertools

import numpy as np
import pytest

from etude import curation
from etude.core.errors import RecipeError
from etude.curation.feedback import reading, wording
from etude.trajectory import Message

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_steps import gradient, talk


def test_the_wording_is_a_bijection_of_the_verdict():
    verdicts = [dict(zip("abc", held, strict=True)) for held in itertools.product([True, False], repeat=3)]
    texts = [wording(verdict) for verdict in verdicts]
    assert len(set(texts)) == 8
    assert [reading(text) for text in texts] == verdicts


def test_without_its_words_it_is_training_on_the_mixed_data(policy):  # noqa: F811
    good, bad = talk("a", 2, policy.renderer.fill), talk("b", 3, policy.renderer.fill)
    bad.episodes[0].reward = 0.0
    mixed = gradient(policy, [good, bad], "token")
    assert (gradient(policy, curation.feedback([good, bad], constraints=[]), "token") == mixed).all()
    coded = curation.feedback([good, bad])
    for t in coded:
        at = t.dialogue(t.episodes[0].leaf)[1].content
        t.messages = [
            Message(m.role, m.content.removesuffix("\n" + at.rpartition("\n")[2])) for m in t.messages
        ]  # the words masked
        t.episodes[0].leaf = policy.renderer.fill(t, t.episodes[0].leaf)
    assert (gradient(policy, coded, "token") == mixed).all()
    told = curation.feedback([good, bad])
    for t in told:
        t.episodes[0].leaf = policy.renderer.fill(t, t.episodes[0].leaf)
    assert np.abs(gradient(policy, told, "token") - mixed).max() > 1e-4


def test_the_verdicts(dialogue):
    good, failed, wrong = dialogue("a"), dialogue("b", reward=0.0), dialogue("c")
    wrong.messages[3] = Message("tool", "error: no Oslo", tool_call_id="1", name="weather")
    none = dialogue("d", reward=None)
    told = curation.feedback([good, failed, wrong, none], constraints=["solved", "flawless", "answered"])
    assert [t.messages[1].content.partition("\n")[2] for t in told] == [
        "Feedback: solved yes, flawless yes, answered yes.",
        "Feedback: solved no, flawless yes, answered yes.",
        "Feedback: solved yes, flawless no, answered yes.",
    ]
    assert all(node.ids_T is None for t in told for node in t.nodes)
    assert good.messages[1].content == "What is the weather in Oslo?"


def test_a_score_is_a_constraint(dialogue):
    told = curation.feedback([dialogue("a", scores={"f1": 0.4})], constraints=["f1"], at_least=0.5)
    assert told[0].messages[1].content.endswith("\nFeedback: f1 no.")
    with pytest.raises(RecipeError, match="no verdict on 'f2'; there are: solved, flawless, answered, f1"):
        curation.feedback([dialogue("a", scores={"f1": 0.4})], constraints=["f2"])
