"""environments/plant: jargon that is looked up before a search, and what a search without that finds."""

import pytest

from etude.agents.loops import native
from etude.core.errors import PartError
from etude.environments import plant
from etude.environments.plant import CONTEXTS, KINDS, METHODS, _factory
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        _factory.cache_clear()
        yield
    _factory.cache_clear()


def all_tasks(world, kind):
    return [t for split in ("train", "dev", "test") for t in world.tasks(split) if t.skills == (kind,)]


async def said(world, task, **arguments):
    session = world.open()
    await session.reset(task, 0)
    step = await session.step(Message("assistant", "", (ToolCall("search", arguments, "call_0"),)))
    return step.observation.messages[0].content


async def golden(world, task):
    return await said(world, task, terms=", ".join(task.data["terms"]), context=task.data["context"])


@pytest.mark.exact(23)
async def test_a_search_is_told_the_meaning_in_its_context_and_no_other():
    meanings = {}
    for task in all_tasks(plant(), "jargon"):
        meanings.setdefault(task.data["terms"][0], set()).add(task.data["name"])
    assert {len(names) for names in meanings.values()} == {3}
    for task in all_tasks(plant(), "jargon"):
        asked = (await golden(plant(), task)).splitlines()[0]
        assert asked.startswith(task.data["question"])
        assert [name for name in meanings[task.data["terms"][0]] if name in asked] == [task.data["name"]]


@pytest.mark.exact(23)
async def test_an_unknown_term_is_told_and_never_defined():
    glossary = _factory()[1]
    tasks = all_tasks(plant(), "unknown")
    assert tasks
    for task in tasks:
        (term,) = task.data["terms"]
        answer = await golden(plant(), task)
        assert answer == f"Unknown: {term}. Check the spelling, or ask who keeps the dictionary."
    known = all_tasks(plant(), "jargon")[0].data["terms"][0]
    elsewhere = next(context for context in CONTEXTS if glossary.lookup(known, context) is None)
    assert (await said(plant(), tasks[0], terms=known, context=elsewhere)).startswith(f"Unknown: {known}.")


@pytest.mark.exact(23)
async def test_with_an_empty_dictionary_it_is_a_search_for_the_question():
    for kind in KINDS:
        for task in all_tasks(plant(), kind):
            assert await golden(plant(dictionary=False), task) == await said(plant(method="rag"), task)


async def test_the_meaning_finds_what_the_abbreviation_does_not():
    async def hits(world, kind, ask):
        tasks = all_tasks(world, kind)
        return sum([task.data["record"] in await ask(world, task) for task in tasks]) / len(tasks)

    assert await hits(plant(), "jargon", golden) == 1
    assert await hits(plant(method="rag"), "jargon", said) < 0.05
    assert await hits(plant(), "plain", golden) == await hits(plant(method="rag"), "plain", said) == 1


@pytest.mark.parametrize("method", METHODS)
async def test_the_expert_earns_everything(method):
    world = plant(method=method)
    tasks = world.tasks("test")
    made = await collect(scripted({t.id: world.solve(t, 0) for t in tasks}), tasks, agent=native())
    assert {t.episodes[0].reward for t in made} == {1.0}
    assert {len(t.tools) for t in made} == {int(method != "bare")}


async def test_other_answers_earn_nothing():
    world = plant()
    task = next(t for t in world.tasks("test") if t.skills == ("unknown",))
    for answer in ("Answer: unknown", "unknown XYZ", "", "Answer: red"):
        session = world.open()
        await session.reset(task, 0)
        assert session.current_reward() == 0
        assert (await session.step(Message("assistant", answer))).reward == 0


async def test_a_context_that_is_not_listed_is_answered_in_words():
    text = await said(plant(), plant().tasks("test")[0], terms="CFP", context="etchin")
    assert text.startswith("error: search: argument 'context' is \"etchin\" (string); did you mean 'etching'?")


def test_splits_share_no_term_and_records_hold_no_abbreviation():
    splits = [plant().tasks(split) for split in ("train", "dev", "test")]
    terms = [{task.data["terms"][0] for task in tasks if task.data["terms"]} for tasks in splits]
    assert sum(map(len, terms)) == len(set.union(*terms)) == 120
    assert all({task.skills[0] for task in tasks} == set(KINDS) for tasks in splits)
    records = " ".join({task.data["record"] for tasks in splits for task in tasks})
    assert not any(term in records for some in terms for term in some)
    names = {task.data["name"] for tasks in splits for task in tasks if task.skills == ("jargon",)}
    assert len(names) == 60 * 3


def test_settings():
    with pytest.raises(PartError, match=r"no method 'gold'; did you mean 'golden'"):
        plant(method="gold")
    with pytest.raises(PartError, match="no split 'domains'"):
        plant().tasks("domains")
