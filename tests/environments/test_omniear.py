"""environments/omniear: what binds actions, what two can lift, solutions, and that they need what they use."""

import copy
import itertools
import json

import pytest

from etude.core.errors import PartError
from etude.environments import omniear
from etude.environments.base import acts
from etude.environments.functions import ToolError
from etude.environments.omniear import ACTIONS, HELD_IN, KINDS, TOGETHER, Scene, way
from etude.policies.scripted import scripted
from etude.trajectory import Message

SPLITS = ("train", "dev", "test", "domains")


def of(kind, split="test"):
    return [task for task in omniear(size=700).tasks(split) if task.domain == kind]


def scene(*limits: float, weight: float = 10.0) -> Scene:
    """A workshop and a yard; agents a, b, … and a load in the workshop, a brush and a dirty cup."""
    return Scene(
        {
            "rooms": {"shop": ["yard"], "yard": ["shop"]},
            "things": {
                "load": {"place": "shop", "weight": weight},
                "brush": {"place": "shop", "weight": 0.5, "binds": "clean"},
                "cup": {"place": "shop", "weight": 0.1, "dirt": 0.7},
                "bench": {"place": "yard", "fixed": True},
            },
            "agents": {who: {"room": "shop", "limit": n, "holds": None} for who, n in zip("abc", limits, strict=False)},
        }
    )


async def play(world, task, messages):
    session, step = world.open(), None
    await session.reset(task, 0)
    for message in messages:
        step = await session.step(message)
    assert step is not None
    return session, step


@pytest.mark.exact(94)
def test_an_action_is_bound_while_its_tool_is_held():
    world = scene(20.0)
    with pytest.raises(ToolError, match=r"you cannot clean; .* what you hold binds: nothing more"):
        world.act("a", "clean cup")
    assert world.act("a", "take brush") == "You hold brush. You can clean now."
    assert world.things["cup"]["dirt"] == 0.7
    assert world.act("a", "clean cup") == "The dirt of cup is 0."
    assert world.things["cup"]["dirt"] == 0
    with pytest.raises(ToolError, match="load has no dirt"):
        world.act("a", "clean load")
    world.act("a", "put brush")
    with pytest.raises(ToolError, match="you cannot clean"):
        world.act("a", "clean cup")


@pytest.mark.exact(94)
@pytest.mark.parametrize("limits", [(30.0,), (30.0, 40.0), (20.0, 30.0, 45.5)])
def test_a_load_moves_if_and_only_if_the_limits_of_its_holders_add_up(limits):
    for weight in (sum(limits) - 0.5, sum(limits), sum(limits) + 0.5):
        world = scene(*limits, weight=weight)
        for who in world.agents:
            world.act(who, "take load")
            if who != list(world.agents)[-1]:  # not before the last of them holds on
                with pytest.raises(ToolError, match="too heavy to move"):
                    world.act("a", "go yard")
        if weight <= sum(limits):
            world.act("a", "go yard")
            assert {agent["room"] for agent in world.agents.values()} == {"yard"}
            world.act("a", "put load on bench")
            assert not any(agent["holds"] for agent in world.agents.values())
        else:
            with pytest.raises(ToolError, match="too heavy to move"):
                world.act("a", "go yard")
            world.act("a", "put load")
        assert world.fulfils([["at", "load", "yard"]]) == (weight <= sum(limits))
        assert world.fulfils([["at", "load", "bench"]]) == (weight <= sum(limits))


@pytest.mark.exact(94)
@pytest.mark.parametrize("kind", KINDS)
async def test_solutions_earn_everything_and_half_of_one_nothing(kind):
    """In both kinds of information; every session is told enough to find what the solution goes for."""
    for information, split in itertools.product(("partial", "full"), SPLITS):
        world = omniear(kinds=[kind], information=information, size=200)
        tasks = world.tasks(split)
        assert len(tasks) == (200 if split == "train" else 20)
        for task in tasks:
            solution = world.solve(task, 0)
            session, step = await play(world, task, solution)
            assert step.reward == 1.0, task.id
            assert not any(m.content.startswith("error") for m in step.observation.messages)
            assert len(solution) <= session.max_steps
            _, early = await play(world, task, [*solution[:-2], solution[-1]])
            assert early.reward == 0.0, task.id


def search(data) -> list[str] | None:
    """The fewest commands that fulfil the goal, found by trying all; None where none do."""

    def key(one: Scene) -> str:
        return json.dumps([one.things, one.agents], sort_keys=True)

    first = Scene(data)
    seen, wave = {key(first)}, [(first, list[str]())]
    while wave:
        following = []
        for one, commands in wave:
            if one.fulfils(data["goal"]):
                return commands
            for who, agent in one.agents.items():
                pieces = ["", *(f" on {n}" for n, thing in one.things.items() if thing.get("fixed"))]
                options = [f"go {room}" for room in one.rooms]
                options += [f"{verb} {name}" for verb in ("take", *ACTIONS) for name in one.things]
                options += [f"put {agent['holds']}{piece}" for piece in pieces]
                for command in options:
                    after = copy.deepcopy(one)
                    try:
                        after.act(who, command)
                    except ToolError:
                        continue
                    if key(after) not in seen:
                        seen.add(key(after))
                        following.append((after, [*commands, f"{who}: {command}"]))
        wave = following
    return None


@pytest.mark.exact(94)
@pytest.mark.parametrize("split", ["test", "domains"])
def test_without_its_tool_a_task_has_no_solution(split):
    for task in omniear(kinds=["tool"], rooms=2, size=60).tasks(split):
        verb = task.data["plan"][0][0]
        found = search(task.data)
        assert found is not None
        assert len(found) <= task.difficulty
        data = copy.deepcopy(task.data)
        (tool,) = [name for name, thing in data["things"].items() if thing.get("binds") == verb]
        del data["things"][tool]
        assert search(data) is None, task.id


def test_without_the_other_agent_a_load_stays_where_it_is():
    for task in omniear(kinds=["implicit"], rooms=2, size=30).tasks("test"):
        data = copy.deepcopy(task.data)
        del data["agents"]["robot"]
        assert search(data) is None, task.id


async def test_bringing_the_others_as_well_is_no_solution():
    for task in of("attribute")[:5]:
        world, (_, one, place) = omniear(), task.data["plan"][0]
        others = [name for name in task.data["things"] if name[:-2] == one[:-2] and name != one]
        solution = world.solve(task, 0)
        rooms, start = task.data["rooms"], Scene(task.data).room_of(one)
        more = [*(f"go {room}" for room in way(rooms, place, start)), f"take {others[0]}"]
        more += [*(f"go {room}" for room in way(rooms, start, place)), f"put {others[0]}"]
        session, step = await play(world, task, [*solution[:-1], *acts(more), solution[-1]])
        assert step.reward == 0.0
        assert session.scene.room_of(others[0]) == place


async def test_only_full_information_tells_of_other_rooms():
    for task in of("tool")[:10]:
        told = {}
        for information in ("partial", "full"):
            first = await omniear(information=information).open().reset(task, 0)
            told[information] = first.messages[1].content
        for room in task.data["rooms"]:
            assert f"{room}: doors" in told["full"]
            assert (f"{room}: doors" in told["partial"]) == (room == task.data["agents"]["you"]["room"])


async def test_the_other_agent_may_be_a_policy():
    obeys = scripted(lambda dialogue: Message("assistant", dialogue[-1].content.rpartition("You are asked: ")[2]))
    refuses = scripted(lambda dialogue: Message("assistant", "no"))
    for kind in TOGETHER:
        task = of(kind)[0]
        solution = omniear().solve(task, 0)
        for partner, reward in ((obeys, 1.0), (refuses, 0.0)):
            world = omniear(partner=partner)
            assert world.speakers == [partner]
            session, step = await play(world, task, solution)
            assert step.reward == reward
        half = len(solution) // 2
        session, _ = await play(omniear(partner=obeys), task, solution[:half])
        kept = await session.snapshot()
        again = omniear(partner=refuses).open()  # what it said before is said again, what comes is its own
        await again.restore(kept)
        assert again.scene.agents == session.scene.agents


async def test_mistakes_are_told():
    world = omniear()
    alone, both = of("direct")[0], of("implicit")[0]
    for task, command, told in [
        (alone, "ask robot go hall", "there is nobody"),
        (both, "ask robot", "write: ask NAME COMMAND"),
        (both, "ask robot fly", "robot says 'fly': you cannot fly"),
        (alone, "dance", "you cannot dance; you can: go ROOM"),
        (alone, "", "you cannot do that"),
        (alone, "take moon", "no moon in"),
        (alone, "put moon", "you do not hold moon"),
        (alone, "go moon", "to moon; There are: "),
    ]:
        _, step = await play(world, task, acts([command]))
        assert told in step.observation.messages[0].content, command
        assert step.observation.messages[0].content.startswith("error: ")


def test_tools_of_unseen_tasks_are_in_no_other():
    bound = {split: set() for split in SPLITS}
    for split in SPLITS:
        for task in omniear(size=500).tasks(split):
            bound[split] |= {name for name, thing in task.data["things"].items() if "binds" in thing}
    assert bound["domains"] == {tool for tools, *_ in list(ACTIONS.values())[HELD_IN:] for tool in tools}
    assert not bound["domains"] & (bound["train"] | bound["dev"] | bound["test"])


def test_settings():
    with pytest.raises(PartError, match="no kind 'tol'; did you mean 'tool'"):
        omniear(kinds=["tol"])
    with pytest.raises(PartError, match="no information 'fool'; did you mean 'full'"):
        omniear(information="fool")
    with pytest.raises(PartError, match="rooms is 1; give 2 to 6"):
        omniear(rooms=1)
    with pytest.raises(PartError, match="no split 'tset'"):
        omniear().tasks("tset")
