"""curation/negatives and scoring/restraint: where a call would be wrong."""

import copy
import dataclasses
from collections import Counter

import pytest

from etude import curation
from etude.core.errors import RecipeError
from etude.scoring.restraint import hscore, restraint
from etude.trajectory import Message, ToolCall

CELLS = ("tools need", "tools plain", "bare need", "bare plain")


@pytest.fixture
def data(dialogue, group):
    return [*(dialogue(str(n)) for n in range(6)), *(group(f"g{n}", 1.0) for n in range(4))]


@pytest.mark.exact(66)
@pytest.mark.parametrize(("share", "added"), [(0.3, 3), (0.01, 1)])
def test_all_four_cells_are_there_and_labelled(data, share, added):
    found = curation.negatives(data, share=share)
    assert Counter(t.meta["cell"] for t in found) == dict(zip(CELLS, (6, added, added, 4), strict=True))
    for t in found:
        t.check()
        assert bool(t.tools) == t.meta["cell"].startswith("tools")
        called = any(m.tool_calls for m in t.dialogue(t.episodes[0].leaf))
        assert called == (t.meta["cell"] == "tools need")
    refused = next(t for t in found if t.meta["cell"] == "bare need")
    assert [m.content for m in refused.messages][1:] == ["What is the weather in Oslo?", "I have no tool for that."]
    assert len({t.id for t in found}) == len(found)


def test_it_needs_both_kinds(data):
    with pytest.raises(RecipeError, match="6 episodes with tools and 0 without"):
        curation.negatives(data[:6])


async def scored(trajectories, act):
    """Each agent answers every request once: what its hallucinations score."""
    trajectories = copy.deepcopy(trajectories)
    for t in trajectories:
        asked = next(n for n, node in enumerate(t.nodes) if t.messages[node.message].role == "user")
        (episode,) = t.episodes
        t.episodes = [dataclasses.replace(episode, leaf=t.add(act(t), asked, version=0))]
        t.episodes[0].scores["restraint"] = await restraint()(t, t.episodes[0])
    return hscore(trajectories)


def call(t):
    return Message("assistant", "", (ToolCall("weather", {"city": "Oslo"}),))


@pytest.mark.exact(66)
async def test_an_oracle_has_1_and_who_always_calls_a_half(data):
    def oracle(t):
        return call(t) if t.meta["cell"] == "tools need" else Message("assistant", "no")

    assert await scored(curation.negatives(data), oracle) == 1.0
    assert await scored(curation.negatives(data), call) == 0.5


async def test_a_format_where_none_belongs_is_a_hallucination(data):
    def formatted(t):
        return Message("assistant", "Thought: look\nAction: weather[Oslo]")

    def invented(t):
        return Message("assistant", "", (ToolCall("fly", {}),))

    assert await scored(curation.negatives(data), formatted) == 0.0
    assert await scored(curation.negatives(data), invented) == 0.0
