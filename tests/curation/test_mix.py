"""curation/mix: AgentTuning's ratio of agent episodes to general chat."""

import json
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.core import parts
from etude.core.errors import RecipeError
from etude.protocols import Batch
from etude.trajectory import Episode, Message, Trajectory

mix = parts.load("curation/mix")


def pool(kind: str, count: int) -> list[Trajectory]:
    rows = []
    for i in range(count):
        t = Trajectory(f"{kind}{i}", f"{kind}{i}", environment=kind)
        t.episodes = [Episode(t.add(Message("assistant", "x"), None))]
        rows.append(t)
    return rows


AGENT, GENERAL = pool("agent", 10), pool("general", 7)


@pytest.mark.exact(115)
@given(st.floats(0, 1), st.integers(0, 300), st.integers(0, 5))
def test_realised_share_is_eta_to_within_one_sample(eta, size, seed):
    drawn = mix(AGENT, GENERAL, eta=eta, size=size, seed=seed)
    assert len(drawn) == size
    assert abs(sum(t.environment == "agent" for t in drawn) - eta * size) <= 0.5


@pytest.mark.exact(115)
def test_one_and_zero_are_the_pure_sets():
    assert {t.id for t in mix(AGENT, GENERAL, eta=1.0)} == {t.id for t in AGENT}
    assert {t.id for t in mix(AGENT, GENERAL, eta=0.0)} == {t.id for t in GENERAL}
    assert len(mix(AGENT, [], eta=1.0)) == 10
    assert len(mix([], GENERAL, eta=0.0)) == 7


@pytest.mark.exact(115)
@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5, 1.0])
def test_mean_loss_of_the_mixture_is_the_papers_objective(eta):
    """J = eta E_agent + (1 - eta) E_general, for any loss per episode: exact where the sets divide the size evenly."""
    general = pool("general", 5)
    loss = {t.id: float(i) ** 2 for i, t in enumerate(AGENT + general)}
    drawn = mix(AGENT, general, eta=eta, size=100)
    expected = eta * np.mean([loss[t.id] for t in AGENT]) + (1 - eta) * np.mean([loss[t.id] for t in general])
    assert np.mean([loss[t.id.split("#")[0]] for t in drawn]) == pytest.approx(expected)


def test_default_size_uses_every_agent_episode_once():
    drawn = mix(AGENT, GENERAL, eta=0.2)
    assert len(drawn) == 50
    assert sorted(t.id for t in drawn if t.environment == "agent") == sorted(t.id for t in AGENT)


def test_uses_are_even_and_ids_stay_apart():
    drawn = mix(AGENT, GENERAL, eta=0.5, size=40)
    uses = Counter(t.id.split("#")[0] for t in drawn)
    assert {uses[t.id] for t in AGENT} == {2}
    assert {uses[t.id] for t in GENERAL} == {2, 3}
    assert len({t.id for t in drawn}) == 40


def test_order_is_set_by_the_seed():
    first, again, other = ([t.id for t in mix(AGENT, GENERAL, eta=0.5, size=30, seed=seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({t.split("#")[0].rstrip("0123456789") for t in first[:10]}) == 2  # shuffled together


def test_group_counts_by_its_episodes(group):
    drawn = mix([group("a", 1.0, 1.0, 1.0)], GENERAL, eta=0.5)
    assert sorted(t.id for t in drawn if t.id.startswith("a")) == ["a/0", "a/1", "a/2"]
    assert all(len(t.episodes) == 1 and len(t.nodes) <= 2 for t in drawn)
    assert len(drawn) == 6


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(RecipeError, match=r"eta=1.5 is not a share"):
        mix(AGENT, GENERAL, eta=1.5)
    with pytest.raises(RecipeError, match=r"asks for 40 episodes of `general`, which has none"):
        mix(AGENT, [], eta=0.2)


@pytest.mark.exact(115)
def test_labels_of_user_and_observation_do_not_matter(renderer, dialogue):
    """The loss reads the mask that rendering made: other labels outside the assistant's turns leave it as it was."""
    trajectory = dialogue()
    leaf = trajectory.episodes[0].leaf
    ids_P = torch.tensor(trajectory.ids_P(leaf), dtype=torch.long)
    sampled_P = torch.tensor(np.concatenate([trajectory.nodes[n].sampled_T for n in trajectory.path(leaf)]))
    logits_PV = torch.randn(len(ids_P), len(renderer.tokenizer), generator=torch.Generator().manual_seed(0))
    logits_PV.requires_grad_()

    def loss(labels_P):
        logprob_N = logits_PV.log_softmax(-1).gather(-1, labels_P[:, None])[:, 0][sampled_P]
        N = len(logprob_N)
        one = torch.ones(N)
        batch = Batch(
            logprob_N,
            one,
            logprob_N.detach(),
            torch.zeros(N).long(),
            torch.tensor([N]),
            N,
            1,
            N,
            torch.tensor([0]),
            torch.tensor([0]),
            1,
        )
        return parts.build("objectives/likelihood")(batch)[0]

    before = loss(ids_P)
    assert loss(torch.where(sampled_P, ids_P, 5)).item() == before.item()
    assert loss(torch.where(sampled_P, 5, ids_P)).item() != before.item()
    (grad,) = torch.autograd.grad(before, logits_PV)
    assert ((grad.abs().sum(-1) > 0) == sampled_P).all()
    said = renderer.decode(ids_P[sampled_P].tolist())
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
    assert said == f"Let me look.\n{call}<|im_end|>Fine.<|im_end|>"


def test_shipped_general_chat_is_well_formed():
    """Short exchanges in OpenAI's format: user and assistant in turn, none repeated."""
    text = files("etude.curation").joinpath("data/general.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line)["messages"] for line in text.splitlines()]
    assert len(rows) >= 140
    for messages in rows:
        roles = [m["role"] for m in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m["content"].strip() == m["content"] != "" for m in messages)
    assert len({m[0]["content"].lower() for m in rows}) == len(rows)
