"""environments/library and the session with a corpus: questions with one answer each, and every tool."""

import re
from collections import Counter

import pytest

from etude.agents.loops import native
from etude.core.errors import FormatError, PartError
from etude.environments import library
from etude.environments.library import docstrings, sentences
from etude.environments.searching import NOTHING, SETS
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall

OWLS = """# Owls

Owls hunt quietly through cold forests because soft feathers muffle their wings.

## Vision

Large eyes gather faint moonlight so that small rodents seldom escape them.

## Common

The same plain sentence stands in both of these little pages here.
"""
SWANS = """# Swans

Swans build enormous nests among reeds and defend them against every visitor.

## Anatomy

Long necks reach underwater plants that shorter ducks cannot possibly touch.

## Common

The same plain sentence stands in both of these little pages here.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("birds")
    (made / "owls.md").write_text(OWLS)
    (made / "swans.md").write_text(SWANS)
    return str(made)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def all_tasks(world):
    return [task for split in ("train", "dev", "test") for task in world.tasks(split)]


async def use(session, *calls):
    """What the tools answer to the calls of one message."""
    made = tuple(ToolCall(name, arguments, str(n)) for n, (name, arguments) in enumerate(calls))
    step = await session.step(Message("assistant", tool_calls=made))
    return [message.content for message in step.observation.messages]


def ids(text: str) -> list[str]:
    return re.findall(r"^\[(.*?)\]", text, re.MULTILINE)


@pytest.fixture
async def interact(folder):
    world = library(folder, tools="interact", encoder="latent")
    session = world.open()
    await session.reset(all_tasks(world)[0], 0)
    return session


def test_questions_by_hand(folder):
    asked = {(t.data["kind"], t.data["path"][-1]): t.data for t in all_tasks(library(folder))}
    assert {path for _, path in asked} == {"Owls", "Vision", "Swans", "Anatomy"}  # and none of what both pages say
    assert len(asked) == 4 * 3 - 2  # the words Owls and Swans stand in the sentences whose document would be asked for
    eyes = "Large eyes gather faint moonlight so that small rodents seldom escape them."
    assert asked["document", "Vision"]["question"] == f'Which document says: "{eyes}"'
    assert asked["document", "Vision"]["accepted"] == ["Owls", "owls.md"]
    assert asked["section", "Anatomy"]["question"] == (
        "Under which heading do these words stand together: cannot, ducks, long and necks?"
    )
    assert asked["section", "Anatomy"]["accepted"] == ["Anatomy", "Swans > Anatomy"]
    gap = asked["word", "Vision"]
    assert gap["question"] == f'In "Vision" of owls.md, which word is left out: "{eyes.replace("escape", "___")}"'
    assert gap["answer"] == "escape"


def test_questions_of_the_standard_library_hold_what_they_promise():
    world, texts = library(), {}
    for document in docstrings():
        for section in document.sections:
            texts[document.id, section.path] = " ".join(section.text.split())
    tasks = all_tasks(world)
    assert len({t.id for t in tasks}) == len(tasks) > 1000
    assert {t.difficulty for t in tasks} == {1.0, 2.0, 3.0}
    kinds = Counter(t.data["kind"] for t in tasks)
    assert min(kinds[kind] for kind in ("document", "section", "word")) > 300
    for task in tasks[::7]:
        data = task.data
        if data["kind"] == "section":
            wanted = data["said"].split()
            held = [at for at, text in texts.items() if all(re.search(rf"\b{w}\b", text.lower()) for w in wanted)]
        else:
            sentence = data["question"].split('"')[-2].replace("___", data["answer"])
            held = [at for at, text in texts.items() if sentence in text]
        assert held == [(data["document"], data["path"])], data["question"]
        assert not any(answer.lower() in data["question"].lower() for answer in data["accepted"])
    places = [{(t.data["document"], t.data["path"]) for t in world.tasks(s)} for s in ("train", "dev", "test")]
    assert len(set.union(*places)) == sum(map(len, places))
    again = library()
    assert [t.id for t in again.tasks("test")] == [t.id for t in world.tasks("test")]


@pytest.mark.parametrize(("tools", "encoder"), [("search", ""), ("search", "latent"), ("interact", "latent")])
async def test_the_expert_is_right_and_nothing_tells_it(folder, tools, encoder):
    world = library(folder, tools=tools, encoder=encoder)
    tasks = all_tasks(world)
    played = await collect(scripted({t.id: world.solve(t, 0) for t in tasks}), tasks, agent=native())
    session = world.open()
    for task, made in zip(tasks, played, strict=True):
        assert made.episodes[0].reward == 1.0
        results = [m.content for m in made.messages if m.role == "tool"]
        assert all(r != NOTHING and not r.startswith("error") for r in results)
        assert any(answer in " ".join(results) for answer in task.data["accepted"])
        shown = " ".join(m.content for m in (await session.reset(task, 0)).messages)
        assert not any(secret in shown for secret in world.secrets(task))


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ("Answer: vision.", 1.0),
        ("I found it. Answer: Owls > Vision", 1.0),
        ("Vision", 1.0),
        ("Answer: Anatomy", 0.0),
        ("", 0.0),
    ],
)
async def test_answers(folder, said, reward):
    world = library(folder)
    (task,) = [t for t in all_tasks(world) if t.data["kind"] == "section" and t.data["path"][-1] == "Vision"]
    session = world.open()
    await session.reset(task, 0)
    assert session.current_reward() == 0
    assert (await session.step(Message("assistant", said))).reward == reward


def test_sentences():
    text = (
        'One short. This sentence has quite enough words to be asked about. He said "these words are not taken at '
        'all here".\n\n    Indented text is no sentence that anyone should be asked about.\n\nA heading without its '
        "end and with enough words in it"
    )
    assert sentences(text) == ["This sentence has quite enough words to be asked about."]


def test_settings(folder, tmp_path):
    with pytest.raises(PartError, match=r"no tools 'interac'; did you mean 'interact'"):
        library(tools="interac")
    with pytest.raises(PartError, match="search by meaning; set encoder to minilm or latent"):
        library(tools="query")
    with pytest.raises(PartError, match=r"folder '/nowhere' is not there"):
        library("/nowhere")
    (tmp_path / "a.txt").write_text("Too short.")
    with pytest.raises(FormatError, match="no question can be made of"):
        library(str(tmp_path)).tasks("train")
    with pytest.raises(PartError, match="no split 'domains'"):
        library(folder).tasks("domains")


# -- the session ------------------------------------------------------------------------------------------------------


async def test_search_open_find(folder):
    world = library(folder)
    session = world.open()
    await session.reset(all_tasks(world)[0], 0)
    assert [schema["name"] for schema in session.tools] == list(SETS["search"])
    (found,) = await use(session, ("search", {"query": "moonlight rodents"}))
    assert (
        found == "[owls.md] Owls > Vision: Large eyes gather faint moonlight so that small rodents seldom escape them."
    )
    (page,) = await use(session, ("open", {"document": "owls.md"}))
    assert page.startswith("# Owls\nOwls hunt")
    (lines,) = await use(session, ("find", {"document": "owls.md", "text": "SMALL  rodents"}))
    assert lines.startswith("page 1: Large eyes")
    few, filtered = await use(
        session,
        ("search", {"query": "sentence pages", "k": 1}),
        ("search", {"query": "sentence pages", "filters": {"kind": "txt"}}),
    )
    assert (len(ids(few)), filtered) == (1, NOTHING)


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("search", {"query": "owls", "k": 0}, "error: k is 0; give 1 to 20"),
        (
            "search",
            {"query": "owls", "filters": {"kin": 1}},
            "error: no document has 'kin' to filter by; did you mean 'ki",
        ),
        ("open", {"document": "Owls"}, "error: no document 'Owls'; did you mean 'owls.md'?"),
        ("open", {"document": "zzz"}, "error: no document 'zzz'; a search gives the ids"),
        ("open", {"document": "owls.md", "page": 2}, "error: 'owls.md' has no page 2; its pages are 1 to 1"),
        ("find", {"document": "owls.md", "text": "dragon"}, NOTHING),
        ("find", {"document": "owls.md", "text": ""}, NOTHING),
        ("search", {"query": "\ud800"}, "error: search: the arguments hold"),
    ],
)
async def test_mistakes_are_answered_in_words(folder, name, arguments, answer):
    world = library(folder)
    session = world.open()
    await session.reset(all_tasks(world)[0], 0)
    assert (await use(session, (name, arguments)))[0].startswith(answer)


@pytest.mark.exact(60)
async def test_fusion_tools_with_all_weight_on_one_side_say_what_that_side_says(interact):
    for query in ("nests reeds", "eyes", "plain sentence pages", "underwater ducks plants moonlight"):
        dense, exact, one, other = await use(
            interact,
            ("semantic_search", {"query": query}),
            ("exact_search", {"keywords": query}),
            ("weighted_fusion", {"query": query, "semantic": 1, "exact": 0}),
            ("weighted_fusion", {"query": query, "semantic": 0, "exact": 1}),
        )
        assert (one, other) == (dense, exact)
        assert ids(exact)
    (refused,) = await use(interact, ("weighted_fusion", {"query": "eyes", "semantic": 0, "exact": 0.0}))
    assert refused.startswith("error: weights are 0 and 0.0")


@pytest.mark.exact(60)
async def test_include_exclude_and_scale_shape_every_later_search(interact):
    query = {"query": "plain sentence pages eyes necks"}
    everything, _, without, _, nothing = await use(
        interact,
        ("semantic_search", query),
        ("exclude_docs", {"documents": ["owls.md"]}),
        ("semantic_search", query),
        ("include_docs", {"documents": ["owls.md"]}),
        ("semantic_search", query),
    )
    assert set(ids(everything)) == {"owls.md", "swans.md"}
    assert set(ids(without)) == {"swans.md"}
    assert nothing == NOTHING  # included and excluded
    shape, only, _, lifted = await use(
        interact,
        ("exclude_docs", {"documents": []}),
        ("semantic_search", query),
        ("include_docs", {"documents": []}),
        ("semantic_search", query),
    )
    assert shape == "5 passages from owls.md."
    assert set(ids(only)) == {"owls.md"}
    assert lifted == everything
    for k in (1, 3, 6):
        _, scaled = await use(interact, ("adjust_scale", {"k": k}), ("semantic_search", query))
        assert len(ids(scaled)) == k
    unknown, wide = await use(interact, ("exclude_docs", {"documents": ["owl"]}), ("adjust_scale", {"k": 21}))
    assert unknown.startswith("error: no document 'owl'")
    assert wide.startswith("error: k is 21")


@pytest.mark.exact(60)
async def test_a_matched_entity_is_in_every_passage_shown(interact):
    found, absent = await use(
        interact, ("entity_match", {"entity": "plain sentence", "query": "swans"}), ("entity_match", {"entity": "swan"})
    )
    assert ids(found) == ["swans.md", "owls.md"]  # both, and first what fits the query
    assert all("plain sentence" in line for line in found.splitlines())
    assert absent == NOTHING  # Swans is another word


async def test_a_fork_keeps_the_shape_and_a_new_episode_does_not(interact):
    await use(interact, ("exclude_docs", {"documents": ["owls.md"]}), ("adjust_scale", {"k": 2}))
    other = interact.task.environment.open()
    await other.restore(await interact.snapshot())
    query = ("semantic_search", {"query": "eyes necks"})
    assert await use(other, query) == await use(interact, query)
    await use(other, ("adjust_scale", {"k": 5}))
    assert (interact.k, other.k) == (2, 5)
    await interact.reset(interact.task, 0)
    assert (interact.k, interact.exclude, interact.include) == (5, frozenset(), None)
