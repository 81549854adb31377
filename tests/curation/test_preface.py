"""curation/preface: a prompt that is context, before a text whose tokens stay the same."""

import numpy as np
import pytest
import torch

from etude.core.errors import PartError
from etude.curation import preface
from etude.training.learner import Learner, rows
from etude.trajectory import Episode, Message, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from ..training.conftest import Gradients

TEXTS = ["the cat sat", "on the mat", "the mat sat on the cat"]


def documents() -> list[Trajectory]:
    made = []
    for i, text in enumerate(TEXTS):
        trajectory = Trajectory(f"d{i}", f"d{i}", meta={"domain": "document" if i < 2 else "question"})
        leaf = trajectory.add(Message("assistant", text), trajectory.add(Message("user", "Text."), None))
        trajectory.episodes.append(Episode(leaf))
        made.append(trajectory)
    return made


def filled(policy, data):  # noqa: F811
    for trajectory in data:
        for episode in trajectory.episodes:
            episode.leaf = policy.renderer.fill(trajectory, episode.leaf)
        trajectory.weigh([1.0])
    return data


@pytest.mark.exact(153)
def test_without_prompts_it_is_continued_pre_training_bit_for_bit(policy):  # noqa: F811
    gradients = Gradients(Learner(policy, _likelihood()))
    plain, none = (gradients.of(filled(policy, data)) for data in (documents(), preface(documents(), prompts=[])))
    assert torch.equal(plain[0], none[0])
    assert plain[1] == none[1]
    with_prompt = gradients.of(filled(policy, preface(documents())))
    assert not torch.equal(plain[0], with_prompt[0])


@pytest.mark.exact(153)
def test_every_arm_trains_the_same_tokens_of_the_documents(policy):  # noqa: F811
    arms = [documents(), preface(documents()), preface(documents(), shuffle=True)]
    trained = [[row.ids_P[row.mask_P].tolist() for row in rows(filled(policy, data))] for data in arms]
    assert trained[0] == trained[1] == trained[2]
    contexts = [[len(row.ids_P) - row.mask_P.sum() for row in rows(data)] for data in arms]
    assert all(a < b for a, b in zip(contexts[0], contexts[1], strict=True))


@pytest.mark.exact(153)
def test_a_label_on_the_prompt_changes_nothing(policy):  # noqa: F811
    """Tokens of the prompt have no weight, so whatever is recorded of them is not read."""
    gradients = Gradients(Learner(policy, _likelihood()))
    data = filled(policy, preface(documents()))
    before, _ = gradients.of(data)
    for trajectory in data:
        for node in trajectory.nodes:
            if node.weight_T is None:
                node.logprob_T = np.full(len(node.ids_T), -9.0, np.float32)
    after, _ = gradients.of(data)
    assert torch.equal(before, after)


def test_prompts_are_drawn_put_first_and_not_made_up():
    prompts = ["One two three.", "Four five."]
    made = preface(documents() * 5, prompts=prompts, seed=3)
    firsts = [t.messages[0].content for t in made]
    assert set(firsts) == {f"{p}\nText." for p in prompts}
    assert [t.messages[1].content for t in made] == TEXTS * 5
    assert firsts == [t.messages[0].content for t in preface(documents() * 5, prompts=prompts, seed=3)]
    mixed = [t.messages[0].content for t in preface(documents() * 5, prompts=prompts, seed=3, shuffle=True)]
    assert [sorted(a.split()) for a in mixed] == [sorted(a.split()) for a in firsts]
    assert mixed != firsts


def test_one_domain_alone_and_nothing_to_put_it_before():
    made = preface(documents(), domain="document")
    assert [t.messages[0].content.endswith("\nText.") for t in made] == [True, True, False]
    with pytest.raises(PartError, match="d has no user message"):
        preface([Trajectory("d", "d", messages=[Message("assistant", "x")])])


def _likelihood():
    from etude.objectives import likelihood

    return likelihood()
