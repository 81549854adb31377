"""scoring/verdict: a judge's probability of its two words, for what the agent did last."""

import math

import numpy as np
import pytest

from etude.core.errors import PartError, ScoreError
from etude.policies import scripted
from etude.scoring.verdict import verdict
from etude.trajectory import Episode, Message, ToolCall, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401


def episode_of(*deeds: Message, **last):
    trajectory = Trajectory("t", "t")
    leaf = trajectory.add(Message("system", "Help."), None)
    leaf = trajectory.add(Message("user", "the cat sat"), leaf)
    for n, message in enumerate(deeds):
        leaf = trajectory.add(message, leaf, version=0, **(last if n == len(deeds) - 1 else {}))
        leaf = trajectory.add(Message("tool", f"result {n}"), leaf)
    return trajectory, Episode(leaf)


OFFER = Message("assistant", "", (ToolCall("propose", {"task": "feed\n> wait"}),))


async def test_the_probability_of_yes_among_two_words_and_what_the_judge_reads(policy, monkeypatch):  # noqa: F811
    asked = []
    real = policy.logprobs

    async def logprobs(sequences, starts):
        decode = policy.renderer.decode
        asked.extend((decode(ids_P), decode(ids_P[n:])) for ids_P, n in zip(sequences, starts, strict=True))
        return await real(sequences, starts)

    monkeypatch.setattr(policy, "logprobs", logprobs)
    score = await verdict(policy, ask="Good?", accepted="cat", rejected="mat", events=2)(*episode_of(OFFER, OFFER))
    prompt = "<|im_start|>user\nthe cat sat\n> propose feed > wait\nresult 0\n> propose feed > wait\nGood?<|im_end|>\n"
    for (text, answer), word in zip(asked, ("cat", "mat"), strict=True):
        assert text == f"{prompt}<|im_start|>assistant\n{word}<|im_end|>"
        assert answer == f"{word}<|im_end|>"
    ids = [policy.renderer.tokenizer.encode(text, add_special_tokens=False) for text, _ in asked]
    starts = [len(policy.renderer.tokenizer.encode(prompt + "<|im_start|>assistant\n", add_special_tokens=False))] * 2
    yes, no = (math.exp(x.sum()) for x in await real([np.array(i, np.int32) for i in ids], starts))
    assert score == pytest.approx(yes / (yes + no), rel=1e-4)
    assert 0 < score < 1


async def test_what_came_after_the_last_deed_changes_nothing(policy):  # noqa: F811
    judge = verdict(policy)
    trajectory, episode = episode_of(OFFER)
    deed = Episode(trajectory.nodes[episode.leaf].parent)
    assert await judge(trajectory, episode) == await judge(trajectory, deed)


async def test_what_cannot_be_read_is_not_scored(policy):  # noqa: F811
    with pytest.raises(ScoreError, match="nothing to judge"):
        await verdict(policy)(*episode_of(OFFER, scores={"malformed": 1.0}))
    with pytest.raises(ScoreError, match="nothing to judge"):
        await verdict(policy)(*episode_of())


def test_a_judge_without_probabilities_is_refused():
    with pytest.raises(PartError, match="'scripted' gives no probabilities; take a local one"):
        verdict(scripted([]))
