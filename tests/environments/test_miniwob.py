"""MiniWoB++ in a real browser: its pages, its verdicts, and that the same task is the same every time."""

import asyncio
import importlib.util
import os
import signal
import tempfile
from pathlib import Path

import pytest

from etude.core.errors import EnvironmentFault, MissingExtra, PartError
from etude.environments.miniwob import HELD_OUT, INSTALL, PLANS, miniwob
from etude.tools import browser
from etude.trajectory import Message, ToolCall

try:
    browser.chromium()
except MissingExtra:
    pytest.skip(INSTALL, allow_module_level=True)
if importlib.util.find_spec("miniwob") is None:
    pytest.skip(INSTALL, allow_module_level=True)


@pytest.fixture(scope="module")
def world():
    made = miniwob()
    yield made
    made.crew.close()
    made.experts.close()


def of(world, page: str, number: int = 0, split: str = ""):
    """A task of a page."""
    split = split or ("pages" if page.startswith(HELD_OUT) else "train")
    return world._make(split, page, number)


def do(name: str, **arguments) -> Message:
    return Message("assistant", "", (ToolCall(name, arguments, "c"),))


async def play(world, task, actions) -> float | None:
    session = world.open()
    await session.reset(task, 0)
    reward = None
    for action in actions:
        step = await session.step(action)
        reward = step.reward
        if step.done:
            break
    await session.close()
    return reward


def test_tasks_are_fixed_and_whole_families_are_held_out(world):
    sizes = {split: len(world.tasks(split)) for split in ("train", "dev", "test", "pages")}
    pages = {split: {task.domain for task in world.tasks(split)[:128]} for split in sizes}
    assert len(pages["train"] | pages["pages"]) == 128
    assert pages["train"] == pages["dev"] == pages["test"]
    assert not pages["train"] & pages["pages"]
    assert {"click-collapsible", "click-collapsible-2", "flight.AA"} <= pages["pages"]
    assert sizes == {"train": 100 * len(pages["train"]), "dev": 10 * len(pages["train"]),
                     "test": 10 * len(pages["train"]), "pages": 10 * len(pages["pages"])}  # fmt: skip
    ids = [task.id for split in sizes for task in world.tasks(split)]
    assert len(set(ids)) == len(ids)
    task = of(world, "use-autocomplete", 3)
    assert (task.id, task.skills, task.provenance) == ("miniwob/train/use-autocomplete/3", ("use",), "miniwob 1.1.0")
    assert of(world, "search-engine").difficulty > of(world, "click-test").difficulty


def test_what_is_not_there_is_refused_in_words(world):
    with pytest.raises(PartError, match="no page 'click-tabs'; did you mean 'click-tab"):
        miniwob(pages=["click-tabs"])
    with pytest.raises(PartError, match="no split 'tests'; did you mean 'test'"):
        world.tasks("tests")
    with pytest.raises(EnvironmentFault, match="the expert cannot do this page; choose pages='solved'"):
        world.solve(of(world, "draw-circle"), 0)


async def test_the_page_gives_its_verdict_and_ends_the_episode(world):
    task = of(world, "click-test-2")
    session = world.open()
    first = await session.reset(task, 0)
    assert first.messages[1].content.startswith("Click button ONE.\n\nClick Test Task")
    assert 'button "ONE"' in first.messages[1].content
    assert session.current_reward() == -1.0
    marks = {"ONE": 1, "TWO": 2} if '[1] button "ONE"' in first.messages[1].content else {"ONE": 2, "TWO": 1}
    calls = [ToolCall("click", {"mark": marks["TWO"]}, "a"), ToolCall("click", {"mark": marks["ONE"]}, "b")]
    step = await session.step(Message("assistant", "", tuple(calls)))
    assert (step.done, step.reward) == (True, -1.0)
    assert step.observation.messages[1].content == "error: the page has given its verdict already"
    await session.reset(task, 0)
    step = await session.step(do("click", mark=marks["ONE"]))
    assert (step.done, step.reward, session.current_reward()) == (True, 1.0, 1.0)
    await session.close()


async def test_doing_nothing_is_what_running_out_of_time_is(world):
    assert await play(world, of(world, "click-test"), [Message("assistant", "I am done.")]) == -1.0
    hurried = miniwob(timed=True)
    limit = [do("wait", seconds=5), do("wait", seconds=5)]
    assert await play(hurried, of(hurried, "click-test"), limit) == -1.0
    assert await play(world, of(world, "click-test"), limit) is None
    hurried.crew.close()


@pytest.mark.parametrize("page", ["click-checkboxes", "login-user-popup", "guess-number"])
async def test_the_expert_reaches_the_maximum(world, page):
    task = of(world, page)
    assert await play(world, task, await asyncio.to_thread(world.solve, task, 0)) == 1.0


async def test_a_problem_depends_on_its_task_alone(world):
    async def watch(task, seed: int) -> list[str]:
        session = world.open()
        seen = [(await session.reset(task, seed)).messages[1].content]
        for action in (do("wait", seconds=3), do("look"), do("wait", seconds=0.5)):
            seen.append((await session.step(action)).observation.messages[0].content)
        await session.close()
        return seen

    task = of(world, "stock-market")  # its price changes with time, by chance
    once = await watch(task, 0)
    assert len(set(once)) > 2
    assert await watch(task, 1) == once
    assert (await watch(of(world, "stock-market", 1), 0)) != once


async def test_fork_by_replay(world):
    task = of(world, "guess-number")
    plan = await asyncio.to_thread(world.solve, task, 0)
    assert len(plan) >= 4
    session, other = world.open(), world.open()
    await session.reset(task, 0)
    for action in plan[:2]:
        await session.step(action)
    await other.restore(await session.snapshot())
    await session.step(do("type", mark=1, text="99"))
    for action in plan[2:]:
        step = await other.step(action)
    assert step.reward == 1.0
    assert session.current_reward() == -1.0
    await session.close()
    await other.close()


async def test_a_killed_worker_ends_its_own_episode_alone(world):
    task = of(world, "click-test")
    session, other = world.open(), world.open()
    await session.reset(task, 0)
    await other.reset(task, 0)
    os.kill(session.worker.process.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"gone|died"):
        await session.step(do("look"))
    assert (await other.step(do("click", mark=1))).reward == 1.0
    await session.reset(task, 0)
    assert (await session.step(do("click", mark=1))).reward == 1.0
    await session.close()
    await other.close()


async def test_views_may_come_with_pictures():
    seeing = miniwob(images=True)
    session = seeing.open()
    first = await session.reset(of(seeing, "count-shape"), 0)
    step = await session.step(do("look"))
    for message in (first.messages[1], step.observation.messages[0]):
        assert message.images[0].data.startswith(b"\x89PNG")
    await session.close()
    seeing.crew.close()


@pytest.mark.slow
async def test_every_page_loads_and_starts(world):
    session = world.open()
    for split in ("train", "pages"):
        tasks = world.tasks(split)
        for task in tasks[: len({task.domain for task in tasks[:128]})]:
            first = await session.reset(task, 0)
            said, _, page = first.messages[1].content.partition("\n\n")
            assert said.strip(), task.id
            assert page.count("\n") >= 1, task.id
            step = await session.step(do("look"))
            assert not step.done, task.id
    await session.close()


@pytest.mark.slow
async def test_the_expert_on_all_its_pages(world):
    assert len(PLANS) >= 20
    rewards = {}
    for page in PLANS:
        for number in range(2):
            task = of(world, page, number)
            rewards[task.id] = await play(world, task, await asyncio.to_thread(world.solve, task, 0))
    assert {identity: reward for identity, reward in rewards.items() if reward != 1.0} == {}


@pytest.mark.slow
async def test_eight_at_once_leave_nothing_behind():
    crowd = miniwob(pages=["click-test", "click-test-2", "enter-text", "click-dialog"])
    tasks = crowd.tasks("train")[:24]
    plans = [await asyncio.to_thread(crowd.solve, task, 0) for task in tasks]
    played = await asyncio.gather(*(play(crowd, task, plan) for task, plan in zip(tasks, plans, strict=True)))
    assert played == [1.0] * 24
    assert crowd.crew.hired == 0
    assert len(crowd.crew.idle) == 8
    folders = [browser.scratch(worker.process.pid) for worker in crowd.crew.idle]
    before = [worker.megabytes() for worker in crowd.crew.idle]
    for _ in range(3):
        await asyncio.gather(*(play(crowd, task, plan) for task, plan in zip(tasks, plans, strict=True)))
    after = [worker.megabytes() for worker in crowd.crew.idle]
    assert sum(after) < 1.5 * sum(before)
    assert all(folder.exists() for folder in folders)
    crowd.crew.close()
    crowd.experts.close()
    fresh = await crowd.crew.hire()  # clears what the others left
    assert {Path(tempfile.gettempdir()) / f.name for f in folders if f.exists()} == set()
    crowd.crew.release(fresh)
    crowd.crew.close()
