"""curation/interchange: every data set arrives through the one protocol."""

import asyncio
import logging

import pytest

from etude import curation
from etude.agents.loops import native
from etude.environments import desk
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall
from etude.trajectory.formats import FORMATS


@pytest.fixture(scope="module")
def episodes_of_desk():
    async def play():
        world = desk(difficulty=2)
        return [
            t
            for task in world.tasks("train")[:40]
            for t in await collect(scripted(world.solve(task, 0)), [task], agent=native())
        ]

    return asyncio.run(play())


def essence(trajectory):
    calls = [(c.name, c.arguments) for m in trajectory.messages for c in m.tool_calls]
    words = [(m.role, "\n".join(filter(None, (m.thought, m.content)))) for m in trajectory.messages]
    return words, calls, trajectory.tools, trajectory.episodes[0].reward, trajectory.task


@pytest.mark.exact(7)
def test_everything_arrives_through_every_format_as_it_was(episodes_of_desk):
    """D importers and one protocol: whatever the raw format, the same dialogues come out."""
    sources = [f for f in FORMATS if f != "adp"]
    for source in sources:
        arrived = {t.task: essence(t) for t in curation.interchange(episodes_of_desk, formats=[source])}
        assert arrived == {t.task: essence(t) for t in episodes_of_desk}, source
    assert len(sources) >= 5


def test_a_domain_belongs_to_one_data_set(episodes_of_desk):
    arrived = curation.interchange(episodes_of_desk)
    assert len(arrived) == len(episodes_of_desk)
    pairs = {(t.meta["domain"], t.meta["dataset"]) for t in arrived}
    assert len({domain for domain, _ in pairs}) == len(pairs)
    assert len({name for _, name in pairs}) >= 4
    assert all(node.ids_T is None for t in arrived for node in t.nodes)


@pytest.mark.exact(7)
def test_what_a_format_cannot_hold_is_refused_with_a_reason(group, caplog):
    fine, parallel = group("a", 1.0), group("b", 1.0)
    calls = (ToolCall("f", {}, "1"), ToolCall("g", {}, "2"))
    parallel.messages[1] = Message("assistant", "", calls)
    with caplog.at_level(logging.WARNING, "etude.curation"):
        arrived = curation.interchange([fine, parallel], formats=["react"])
    assert [t.id for t in arrived] == ["a"]
    assert "react refuses b: parallel calls have no place in a react row" in caplog.text
