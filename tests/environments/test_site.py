"""The web shop: that its state is what is judged, and all of it."""

import asyncio
import random

import pytest

from etude.core.errors import MissingExtra, PartError
from etude.environments.site import FAMILIES, GOODS, INSTALL, Pages, Refused, Shop, draw, goal, site
from etude.tools import browser
from etude.trajectory import Message, ToolCall


def tasks(kind: str, family: str):
    return [draw(random.Random(f"{kind} {n}"), kind, str(n), family) for n in range(40)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", GOODS)
def test_every_task_asks_for_a_change_that_the_shop_allows(kind, family):
    for data in tasks(kind, family):
        assert goal(data) != Shop(data["kind"], data["seed"]).state()
        assert goal(data) == goal(data)


def test_the_cheapest_is_the_cheapest_by_hand():
    (data, *_) = tasks("kitchen", "cheapest")
    shop = Shop("kitchen", data["seed"])
    prices = {item["name"]: item["price"] for item in shop.items.values() if item["good"] == data["want"]["good"]}
    assert len(prices) == 4
    assert prices[data["want"]["thing"]] == min(prices.values())
    assert goal(data)["cart"].items() > shop.state()["cart"].items()


def test_the_shop_refuses_in_words():
    shop = Shop("garden", "s")
    new = str(next(n for n in shop.items if n not in shop.cart))
    with pytest.raises(Refused, match=r"Only \d+ of .* are in stock"):
        shop.put(new, "99")
    for count in ("0", "-1", "many", ""):
        with pytest.raises(Refused, match="is no number of items"):
            shop.put(new, count)
    with pytest.raises(Refused, match="Please give: street, delivery"):
        shop.order(name="Ann", street=" ", city="Riga")
    before = shop.state()
    assert "Ann &amp; Co" in Pages(shop).frame("", "Ann & Co")
    assert shop.state() == before
    shop.order(name="Ann", street="1 Oak Road", city="Riga", delivery="express")
    with pytest.raises(Refused, match="The cart is empty"):
        shop.order(name="Ann", street="1 Oak Road", city="Riga", delivery="express")


try:
    browser.chromium()
    present = True
except MissingExtra:
    present = False
in_browser = pytest.mark.skipif(not present, reason=INSTALL)


@pytest.fixture(scope="module")
def world():
    made = site()
    yield made
    made.crew.close()
    made.experts.close()


def do(name: str, **arguments) -> Message:
    return Message("assistant", "", (ToolCall(name, arguments, "c"),))


@in_browser
def test_tasks_are_fixed_and_one_kind_of_shop_is_never_practised(world):
    assert [len(world.tasks(split)) for split in ("train", "dev", "test", "domains")] == [2000, 200, 200, 200]
    assert {task.domain for task in world.tasks("domains")} == {"music"}
    assert {task.domain for task in world.tasks("train")[:100]} == {"kitchen", "garden", "office"}
    assert {task.skills[0] for task in world.tasks("dev")[:7]} == set(FAMILIES)
    first = world.tasks("train")[0]
    assert (first.id, first.data) == ("site/train/0", site().tasks("train")[0].data)
    with pytest.raises(PartError, match="no split 'tests'; did you mean 'test'"):
        world.tasks("tests")


@in_browser
@pytest.mark.parametrize("n", range(len(FAMILIES)))
async def test_the_expert_reaches_the_maximum_and_doing_nothing_earns_nothing(world, n):
    task = world.tasks("dev")[n]
    session = world.open()
    await session.reset(task, 0)
    assert await session.current_reward() == 0.0
    for action in await asyncio.to_thread(world.solve, task, 0):
        step = await session.step(action)
    assert (step.done, step.reward) == (True, 1.0)
    await session.close()


@in_browser
async def test_one_thing_too_many_earns_nothing_and_the_next_episode_finds_no_trace(world):
    task = next(task for task in world.tasks("dev") if task.skills == ("cancel",))
    *plan, last = await asyncio.to_thread(world.solve, task, 0)
    session = world.open()
    await session.reset(task, 0)
    for action in plan:
        await session.step(action)
    assert await session.current_reward() == 1.0
    page = (await session.step(do("goto", url="/cart"))).observation.messages[0].content
    remove = int(page[: page.index('] button "Remove"')].rpartition("[")[2])
    await session.step(do("click", mark=remove))
    assert (await session.step(last)).reward == 0.0
    again = await session.reset(task, 0)
    assert await session.ask("state") == Shop(task.data["kind"], task.data["seed"]).state()
    assert again.messages[1].content.startswith(task.data["prompt"])
    await session.close()


@in_browser
async def test_fork_by_replay(world):
    task = next(task for task in world.tasks("dev") if task.skills == ("put",))
    plan = await asyncio.to_thread(world.solve, task, 0)
    session, other = world.open(), world.open()
    await session.reset(task, 0)
    for action in plan[:2]:
        await session.step(action)
    at_two = await session.snapshot()
    await session.step(do("goto", url="/orders"))
    await other.restore(at_two)
    for action in plan[2:]:
        step = await other.step(action)
    assert step.reward == 1.0
    assert await session.current_reward() == 0.0
    await session.close()
    await other.close()


@in_browser
async def test_only_the_shop_can_be_reached(world):
    session = world.open()
    await session.reset(world.tasks("dev")[0], 0)
    said = (await session.step(do("goto", url="http://127.0.0.1:80/"))).observation.messages[0].content
    assert said == "error: 'http://127.0.0.1:80/' was not opened: only these can be reached: shop.test"
    said = (await session.step(do("goto", url="/nowhere"))).observation.messages[0].content
    assert "There is no page /nowhere." in said
    await session.close()
