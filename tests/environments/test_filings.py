"""environments/filings: what a ranking earns, by hand, and that the stages are judged apart."""

from math import log2

import pytest

from etude.agents.loops import native, retriever
from etude.core.errors import PartError
from etude.environments import filings
from etude.environments.filings import DEPTH, TOPICS, measures, read
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message


def some(world, stage, split="test", count=30):
    return [task for task in world.tasks(split) if task.skills == (stage,)][:count]


def shown(task):
    """The candidates of a stage in the order in which they are shown, and the relevant ones, the best first."""
    kinds, passages = list(TOPICS[task.data["topic"]][1]), list(TOPICS[task.data["topic"]][2])
    if task.skills == ("passage",):
        return [heading for heading, _ in task.data["documents"][kinds[0]]], passages
    return task.data["types"], kinds


async def earned(world, task, *said):
    session = world.open()
    await session.reset(task, 0)
    for text in said:
        step = await session.step(Message("assistant", text))
    assert step.done
    return step.reward


@pytest.mark.exact(21)
def test_measures_by_hand():
    gain = {"a": 2.0, "b": 1.0}
    best = 2 + 1 / log2(3)
    assert measures(["x", "b", "a"], gain) == pytest.approx(
        {"ndcg": (1 / log2(3) + 2 / log2(4)) / best, "map": (1 / 2 + 2 / 3) / 2, "mrr": 1 / 2}
    )
    assert measures(["b", "x", "y", "z", "a"], gain) == pytest.approx(
        {"ndcg": (1 + 2 / log2(6)) / best, "map": (1 + 2 / 5) / 2, "mrr": 1}
    )
    late = ["v", "w", "x", "y", "z", "a", "b"]
    assert measures(late, gain) == {"ndcg": 0, "map": 0, "mrr": 0}  # what stands behind the fifth place is not seen
    assert measures([], gain) == {"ndcg": 0, "map": 0, "mrr": 0}


@pytest.mark.exact(21)
@pytest.mark.parametrize("metric", ["ndcg", "map", "mrr"])
@pytest.mark.parametrize("stage", ["type", "passage"])
async def test_the_gold_order_earns_1_and_its_reverse_the_closed_form(stage, metric):
    world = filings(metric=metric)
    n = {"type": 5, "passage": 6}[stage]
    at = n - 1  # where the reverse has what helps; what answers comes after it, for passages too late to be seen
    seen = n <= DEPTH
    closed = {
        "ndcg": (1 / log2(at + 1) + seen * 2 / log2(n + 1)) / (2 + 1 / log2(3)),
        "map": (1 / at + seen * 2 / n) / 2,
        "mrr": 1 / at,
    }
    for task in some(world, stage):
        names, best = shown(task)
        assert len(names) == n
        order = best + [name for name in names if name not in best]
        assert await earned(world, task, ", ".join(order)) == 1
        assert await earned(world, task, ", ".join(order[::-1])) == pytest.approx(closed[metric])


@pytest.mark.exact(21)
@pytest.mark.parametrize("metric", ["ndcg", "map", "mrr"])
async def test_the_order_of_what_is_irrelevant_does_not_matter(metric):
    world = filings(metric=metric)
    for task in some(world, "passage", count=10):
        names, (answers, helps) = shown(task)
        rest = [name for name in names if name not in (answers, helps)]
        for turn in range(len(rest)):
            a, b, *others = rest[turn:] + rest[:turn]
            first = await earned(world, task, ", ".join([a, answers, b, helps, *others]))
            other = await earned(world, task, ", ".join([b, answers, a, helps, *others[::-1]]))
            assert first == other < 1


@pytest.mark.exact(21)
def test_splits_share_no_firm_and_all_ask_about_everything():
    firms = [{task.data["firm"] for task in filings().tasks(split)} for split in ("train", "dev", "test")]
    assert sum(map(len, firms)) == len(set.union(*firms)) == 120
    assert all(len({task.domain for task in filings().tasks(split)}) == 10 for split in ("train", "dev", "test"))
    test = filings().tasks("test")
    assert not any(firm in task.data["question"] for task in test for firm in firms[0])


async def test_a_name_that_is_not_there_or_comes_twice_earns_nothing():
    world = filings()
    for stage in ("type", "passage"):
        (task,) = some(world, stage, count=1)
        right = ", ".join(shown(task)[1])
        assert await earned(world, task, right) == 1
        for wrong in (f"{right}, tea", f"{right}, {right}", "", ",", right.replace(",", "")):
            assert await earned(world, task, wrong) == 0
    assert read("b, a", ["a", "b"]) == ["b", "a"]


async def test_the_end_depends_on_both_stages_and_the_second_alone_does_not_on_the_first():
    """Question by question, the end is the passages' score where the right document came first, and else 0."""
    world = filings()
    tasks = world.tasks("test")
    made = await collect(scripted(lambda dialogue: Message("assistant")), tasks, agent=retriever())
    wrong = 0
    for first, second, both in zip(*(made[n::3] for n in range(3)), strict=True):
        said = next(m.content for m in first.messages if m.role == "assistant")
        task = tasks[made.index(first)]
        right = said.startswith(TOPICS[task.domain][1][0])
        wrong += not right
        assert both.episodes[0].reward == (second.episodes[0].reward if right else 0)
    assert 0 < wrong < len(tasks) / 3


async def test_the_document_that_was_put_first_is_the_one_that_is_opened():
    world = filings()
    (task,) = some(world, "both", count=1)
    for kind in task.data["types"]:
        session = world.open()
        await session.reset(task, 0)
        step = await session.step(Message("assistant", kind))
        lines = step.observation.messages[0].content.splitlines()
        assert [line.split(":")[0].removeprefix("- ") for line in lines] == [
            heading for heading, _ in task.data["documents"][kind]
        ]


async def test_the_expert_earns_everything():
    world = filings()
    tasks = world.tasks("test")
    made = await collect(scripted({t.id: world.solve(t, 0) for t in tasks}), tasks, agent=native())
    assert {t.episodes[0].reward for t in made} == {1.0}


def test_settings():
    with pytest.raises(PartError, match=r"no metric 'ndgc'; did you mean 'ndcg'"):
        filings(metric="ndgc")
    with pytest.raises(PartError, match="no split 'domains'"):
        filings().tasks("domains")
