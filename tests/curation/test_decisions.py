"""curation/decisions and curation/knowledge: AgentFounder's texts."""

import asyncio
import random
import re
from collections import Counter

import pytest

from etude import curation
from etude.agents.loops import native
from etude.curation.base import answers, wording
from etude.curation.knowledge import memory
from etude.environments import lookup
from etude.policies import scripted
from etude.rollout.collect import collect


@pytest.fixture(scope="module")
def world():
    return lookup()


@pytest.fixture(scope="module")
def data(world):
    tasks = world.tasks("train")[:90]
    said = scripted({t.id: world.solve(t, 0) for t in tasks})
    return asyncio.run(collect(said, tasks, agent=native(), max_turns=99))


def texts(found, kind: str):
    return [t for t in found if t.meta.get("synthetic") == kind]


@pytest.mark.exact(47)
def test_the_chosen_option_is_the_action_that_was_taken(data):
    found = curation.decisions(data, options=4)
    assert found[: len(data)] == data
    assert len(texts(found, "decisions")) == len(data)
    of = {t.id: t for t in data}
    for text in texts(found, "decisions"):
        said = text.messages[-1].content
        taken = [wording(of[text.id[:-1]].messages[m]) for m, _ in answers(of[text.id[:-1]])]
        steps = re.findall(r"((?:Option \d+: .*\n)+)I choose option (\d+)\.", said)
        options = [dict(re.findall(r"Option (\d+): (.*)\n", block)) for block, _ in steps]
        assert [listed[n] for listed, (_, n) in zip(options, steps, strict=True)] == taken
        assert [int(n) for _, n in steps] == text.meta["chosen"]
        assert all(len(set(listed.values())) == len(listed) == 4 for listed in options)
        assert said.endswith("My decision is correct.")


@pytest.mark.exact(47)
def test_its_place_is_uniform(data):
    places = Counter(n for seed in range(10) for t in texts(curation.decisions(data, seed=seed), "decisions")
                     for n in t.meta["chosen"])  # fmt: skip
    expected = places.total() / 4
    assert sorted(places) == [1, 2, 3, 4]
    assert sum((n - expected) ** 2 / expected for n in places.values()) < 16.3  # chi-squared, 3 degrees, p = 0.001


@pytest.mark.exact(47)
def test_no_call_is_made(data, world, monkeypatch):
    def refuse(*_):
        raise AssertionError("played")

    monkeypatch.setattr(type(world), "open", refuse)
    assert len(curation.decisions(curation.knowledge(data))) > 2 * len(data)


@pytest.mark.exact(47)
def test_the_order_of_documents_leaves_the_memory_unchanged(data):
    documents = [m.content for t in data for m in t.messages if m.role == "tool"]
    assert len(memory(documents)) > 50
    assert all(statements == sorted(statements) for statements in memory(documents).values())
    for seed in range(3):
        assert list(memory(random.Random(seed).sample(documents, len(documents))).items()) == list(
            memory(documents).items()
        )


def test_three_kinds_of_dialogues(data):
    found = curation.knowledge(data)
    assert found[: len(data)] == data
    assert len({t.id for t in found}) == len(found)
    known = {t.id: [m.content for m in t.messages] for t in found[len(data) :]}
    searched = next(t for t in data if any(m.role == "tool" for m in t.messages))
    asked = searched.messages[1].content
    results = " ".join(m.content for m in searched.messages if m.role == "tool")
    assert known[f"planning/{searched.id}"][0] == f"{asked}\nHow do you begin?"
    assert known[f"planning/{searched.id}"][1].endswith(wording(searched.messages[2]))
    assert known[f"reasoning/{searched.id}"] == [f"{results}\n{asked}", searched.messages[-1].content]


def test_a_lone_action_is_no_choice(data):
    assert len(curation.decisions([data[1]], options=1)) == 1
