"""environments/lookup: questions, a search tool, and an expert of three methods in one format."""

import asyncio

import pytest

from etude.agents.loops import native
from etude.core import recipe as recipes
from etude.core.errors import PartError
from etude.environments import lookup
from etude.environments.lookup import MASK, METHODS, NOTHING, bm25, script
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall
from etude.trajectory.formats import export_file, import_file

SPLITS = ("train", "dev", "test", "domains")


async def play(world, tasks):
    return [t for task in tasks for t in await collect(scripted(world.solve(task, 0)), [task], agent=native())]


async def replay(world, task, dialogue) -> float | None:
    session, reward = world.open(), None
    await session.reset(task, seed=0)
    for message in dialogue:
        if message.role == "assistant":
            reward = (await session.step(message)).reward
    return reward


@pytest.mark.exact(40)
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("method", METHODS)
async def test_every_method_parses_in_the_one_format_and_replays_to_the_answer(tmp_path, method, noise):
    """Thought, action and observation lines; read back, each dialogue earns its reward again."""
    world = lookup(methods=method, noise=noise)
    tasks = {t.id: t for split in SPLITS for t in world.tasks(split)[:24]}
    made = await play(world, tasks.values())
    assert all(t.episodes[0].reward == 1.0 for t in made)
    exported = export_file(made, tmp_path / "one.jsonl", "react")
    assert (exported.written, exported.refused) == (len(tasks), [])
    imported = import_file(tmp_path / "one.jsonl", "react")
    assert not imported.quarantined
    for trajectory in imported.trajectories:
        task = tasks[trajectory.task]
        last = trajectory.messages[-1]
        assert last.content.endswith(f"Answer: {task.data['answer']}")
        assert await replay(world, task, trajectory.messages) == trajectory.episodes[0].reward == 1.0


@pytest.mark.exact(40)
async def test_a_chain_of_thought_calls_no_tool():
    world = lookup(methods="cot")
    given = [t for t in world.tasks("train")[:30] if t.data["given"]]
    assert len(given) == 10
    for trajectory in await play(world, given):
        assert [m.role for m in trajectory.messages] == ["system", "user", "assistant"]
        assert not trajectory.messages[-1].tool_calls


@pytest.mark.exact(40)
def test_prompted_and_tuned_runs_are_tested_on_the_same_questions():
    tuned, prompted = lookup(methods=["react", "cot"], noise=0.5), lookup(shots=3, noise=0.5)
    for split in ("test", "domains"):
        ours, theirs = tuned.tasks(split), prompted.tasks(split)
        assert [t.id for t in ours] == [t.id for t in theirs]
        assert [t.data for t in ours[:20]] == [t.data for t in theirs[:20]]


def test_reflexion_puts_its_reflection_into_a_thought():
    task = lookup().tasks("train")[1]  # one hop
    first, second, last = script(task.data, "reflexion")
    assert first.tool_calls[0].arguments == {"query": task.data["poor"]}
    assert "Reflection" in second.content
    assert second.tool_calls[0].arguments == {"query": task.data["queries"][0]}
    assert last.content.endswith(task.data["answer"])
    assert len(script(task.data, "react")) == 2


async def test_noise_hides_the_first_search_and_leaves_training_alone():
    world = lookup(noise=1.0)
    task = world.tasks("test")[1]
    session = world.open()
    await session.reset(task, seed=0)
    ask = Message("assistant", "", (ToolCall("search", {"query": task.data["queries"][0]}, "1"),))
    found = [(await session.step(ask)).observation.messages[0].content for _ in range(2)]
    assert found[0] == NOTHING
    assert task.data["answer"] in found[1]
    assert "noise" in task.skills
    assert not any(t.data["noisy"] for t in world.tasks("train")[:50])
    assert [t.data["question"] for t in lookup().tasks("test")[:9]] == [
        t.data["question"] for t in world.tasks("test")[:9]
    ]
    assert lookup().tasks("test")[0].id != task.id  # with noise it is another task


def test_splits_share_no_question_and_new_domains_no_kind_of_place():
    world = lookup()
    asked = [{(t.data["question"], *t.data["articles"]) for t in world.tasks(split)[:200]} for split in SPLITS]
    assert len(set.union(*asked)) == sum(map(len, asked))
    kinds = [{t.domain for t in world.tasks(split)[:100]} for split in SPLITS]
    assert kinds[:3] == [{"town", "club"}] * 3
    assert kinds[3] == {"ship"}


@pytest.mark.parametrize(
    ("answer", "reward"),
    [("It is red. Answer: {0}", 1.0), ("Answer: no. Answer: the {0}.", 1.0), ("{0}", 0.0), ("Answer: {0} blue", 0.0)],
)
async def test_the_words_after_the_last_marker_are_judged(answer, reward):
    world = lookup()
    task = world.tasks("test")[1]
    said = Message("assistant", answer.format(task.data["answer"]))
    assert await replay(world, task, [said]) == reward


def test_bm25_prefers_rare_words_and_short_articles():
    articles = ["The flag of Bola is red.", "The bird of Bola is owl.", "The flag of Kuma is blue."]
    assert bm25("flag of Kuma", articles).index(max(bm25("flag of Kuma", articles))) == 2
    assert bm25("nothing here", articles) == [0.0, 0.0, 0.0]
    # one holder of two: idf = ln(1 + 1.5 / 1.5), one occurrence in an article of mean length
    (score, _) = bm25("owl", ["owl flies", "cat sleeps"])
    assert score == pytest.approx(0.6931471805599453)


async def test_a_fork_goes_on_from_where_it_was():
    world = lookup(noise=1.0)
    task = world.tasks("test")[2]
    session, other = world.open(), world.open()
    await session.reset(task, seed=0)
    ask = Message("assistant", "", (ToolCall("search", {"query": task.data["queries"][0]}, "1"),))
    await session.step(ask)
    await other.restore(await session.snapshot())
    assert (await other.step(ask)).observation == (await session.step(ask)).observation
    assert other.searches == 2


def test_wrong_settings_are_refused():
    with pytest.raises(PartError, match=r"no method 'reac'; did you mean 'react'"):
        lookup(methods=["reac"])
    with pytest.raises(PartError, match="methods is empty"):
        lookup(methods=[])
    with pytest.raises(PartError, match=r"noise is 2; give a share"):
        lookup(noise=2)
    with pytest.raises(PartError, match="no split 'tests'"):
        lookup().tasks("tests")


def test_examples_are_shown_on_demand():
    async def system(shots: int) -> str:
        session = lookup(shots=shots).open()
        return (await session.reset(lookup().tasks("test")[0], 0)).messages[0].content

    assert asyncio.run(system(0)).count("Question:") == 0
    assert asyncio.run(system(3)).count("Question:") == 3


@pytest.mark.exact(13)
@pytest.mark.parametrize("masks", [1, 2, 3])
async def test_unmasking_with_the_recorded_answers_gives_the_passage(masks):
    world = lookup()
    tasks = world.tasks(f"masked-{masks}")[:30]
    for task in tasks:
        passage = task.data["question"].removeprefix("Fill in: ")
        assert passage.count(MASK) == masks == task.difficulty
        for word in task.data["answer"].split(", "):
            passage = passage.replace(MASK, word, 1)
        assert passage == task.data["passage"]
    for trajectory in await play(world, tasks):
        assert trajectory.episodes[0].reward == 1.0
        assert sum(m.role == "tool" for m in trajectory.messages) == masks
        assert not any(m.content == NOTHING for m in trajectory.messages)


@pytest.mark.exact(13)
def test_the_curriculum_s_batches_never_have_fewer_masks_than_the_one_before():
    """Each stage of the recipe trains one number of masks, and then the questions."""
    trained = []
    for stage in recipes.load("masksearch").data["stages"]:
        (verb, options), *_ = stage.items()
        if verb == "collect":
            split = options.get("split", "train")
        if verb == "curate":
            assert options["keep"] == [{"where": {"key": "split", "values": [split]}}]
        if verb == "train":
            trained.append(split)
    assert trained == ["masked-1", "masked-2", "masked-3", "train"]


def test_with_as_many_masks_another_passage_each_time():
    tasks = lookup().tasks("masked-3")[:50]
    assert len({t.data["question"] for t in tasks}) == len({t.id for t in tasks}) == 50
