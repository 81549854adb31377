"""Tools from functions, checked calls, sessions and worlds of one's own."""

import asyncio
import dataclasses
import enum
import json
from typing import Any, Literal

import numpy as np
import pytest

from etude.core.errors import EnvironmentFault, FormatError, PartError, ScoreError
from etude.environments.base import ToolSession, acts
from etude.environments.functions import ToolError, check_call, coerce_call, tool
from etude.environments.hosted import GameSession
from etude.environments.world import World
from etude.protocols import Observation, Task
from etude.tools.process import Crew
from etude.trajectory import Message, ToolCall


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclasses.dataclass
class Address:
    city: str
    number: int = 1


def call(name: str, **arguments: Any) -> Message:
    return Message("assistant", tool_calls=(ToolCall(name, arguments, "c1"),))


# -- tool ----------------------------------------------------------------------------------------------------------


def test_schema_of_every_type():
    @tool
    def order(
        item: str,
        count: int,
        price: float,
        gift: bool,
        speed: Literal["slow", "fast"],
        size: Size,
        tags: list[str],
        extra: dict,
        where: Address,
        note: str | None = None,
        retries: int = 3,
    ) -> str:
        """Order an item
        from the shelf.

        And a second paragraph.
        """
        return item

    assert order.schema == {
        "name": "order",
        "description": "Order an item from the shelf.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string"},
                "count": {"type": "integer"},
                "price": {"type": "number"},
                "gift": {"type": "boolean"},
                "speed": {"enum": ["slow", "fast"]},
                "size": {"enum": ["s", "l"]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "extra": {"type": "object"},
                "where": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "number": {"type": "integer"}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
                "note": {"type": ["string", "null"]},
                "retries": {"type": "integer", "default": 3},
            },
            "required": ["item", "count", "price", "gift", "speed", "size", "tags", "extra", "where"],
        },
    }
    assert order("tea", 1, 1.0, True, "slow", Size.SMALL, [], {}, Address("Rome")) == "tea"


def plain(a: int, b: int = 0):
    """Add.

    a: the first,
      however large
    b: the second
    """


def google(a: int, b: int = 0):
    """Add.

    Args:
        a (int): the first,
            however large
        b: the second

    Returns:
        c: nothing
    """


def numpy_style(a: int, b: int = 0):
    """Add.

    Parameters
    ----------
    a : int
        the first,
        however large
    b : int, optional
        the second
    """


def sphinx(a: int, b: int = 0):
    """Add.

    :param a: the first,
        however large
    :param b: the second
    """


@pytest.mark.parametrize("function", [plain, google, numpy_style, sphinx])
def test_argument_notes_in_every_style(function):
    schema = tool(function).schema
    notes = {name: p.get("description") for name, p in schema["parameters"]["properties"].items()}
    assert schema["description"] == "Add."
    assert notes == {"a": "the first, however large", "b": "the second"}


async def test_methods_and_async_functions_keep_working():
    class Shelf:
        @tool
        async def look(self, item: str) -> str:
            """Look."""
            return item + "!"

        def plain(self, item: str) -> str:
            return item

    shelf = Shelf()
    assert tool(shelf.plain).schema["parameters"]["required"] == ["item"]
    assert list(shelf.look.schema["parameters"]["properties"]) == ["item"]
    assert await shelf.look("tea") == "tea!"


def test_functions_that_cannot_be_tools_say_why():
    def untyped(a): ...
    def odd(a: complex): ...
    def many(*a: int): ...

    with pytest.raises(EnvironmentFault, match="'untyped', argument 'a' has no type"):
        tool(untyped)
    with pytest.raises(EnvironmentFault, match=r"complex.*JSON cannot hold"):
        tool(odd)
    with pytest.raises(EnvironmentFault, match="called by name"):
        tool(many)


# -- check_call ----------------------------------------------------------------------------------------------------


@tool
def move(item: str, day: Literal["Mon", "Tue"], count: int = 1, where: Address | None = None, all: list[int] = []):  # noqa: B006
    """Move."""


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("move", {"item": "x", "day": "Mon"}, ""),
        ("move", {"item": "x", "day": "Mon", "count": "3"}, ""),
        ("move", {"item": "x", "day": "Mon", "where": {"city": "Rome"}}, ""),
        ("mov", {}, "no tool 'mov'; did you mean 'move'? There are: move"),
        ("move", {"itme": "x", "day": "Mon"}, "takes no argument 'itme'; did you mean 'item'?"),
        ("move", {"day": "Mon"}, "move needs 'item'; its arguments are: item, day, count, where, all"),
        ("move", {"item": "x", "day": "Mon", "count": "many"}, "'count' is \"many\" (string); expected integer"),
        ("move", {"item": "x", "day": "Mon", "count": 2.5}, "'count' is 2.5 (number); expected integer"),
        ("move", {"item": "x", "day": "Mon", "count": True}, "'count' is true (boolean); expected integer"),
        ("move", {"item": None, "day": "Mon"}, "'item' is null (null); expected string"),
        ("move", {"item": "x", "day": "Mom"}, "'day' is \"Mom\" (string); did you mean 'Mon'? There are: Mon, Tue"),
        ("move", {"item": "x", "day": "Mon", "all": [1, "b"]}, "'all[1]' is \"b\" (string); expected integer"),
        ("move", {"item": "\U0001f600", "day": "Mon"}, ""),
        ("move", {"item": "a\ud83d", "day": "Mon"}, "the arguments hold '\\ud83d', half of a character"),
        ("move", {"item": "x", "day": "Mon", "where": {"city": "\ud83d"}}, "half of a character"),
        ("move", [1], "arguments are [1] (array); expected an object"),
        ("move", "x", "expected an object"),
    ],
)
def test_check_call_says_how_to_mend(name, arguments, said):
    problem = check_call([move.schema], ToolCall(name, arguments))
    assert (problem == "") if said == "" else (said in problem)


@pytest.mark.parametrize(
    ("hint", "given", "read"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (int, "3.5", "3.5"),
        (int, "007", "007"),
        (int, True, True),
        (float, "2.5", 2.5),
        (float, "1e999", "inf"),
        (bool, "true", True),
        (bool, "yes", "yes"),
        (str, 417, "417"),
        (str, 4.0, 4.0),
        (list[int], "[1, 2]", [1, 2]),
        (list[int], ["1", 2], [1, 2]),
        (int | None, "3", 3),
        (str | None, None, None),
        (str | int, "3", "3"),
    ],
)
def test_coercion_loses_nothing(hint, given, read):
    def f(x): ...

    f.__annotations__ = {"x": hint}
    result = coerce_call([tool(f).schema], ToolCall("f", {"x": given})).arguments["x"]
    assert result == read
    assert type(result) is type(read)


# -- ToolSession ---------------------------------------------------------------------------------------------------


class Counter(ToolSession):
    """Counts up; the reward is the count over ten."""

    async def begin(self, task: Task, seed: int) -> Observation:
        self.total = seed
        self.tools = [add.schema, fail.schema, slow.schema, long.schema]
        return Observation((Message("user", "count"),))

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "add":
            if arguments["n"] < 0:
                raise ToolError("n must not be negative")
            self.total += arguments["n"]
            self.done = self.total >= 50
            return {"total": self.total, "é": (1, 2)}
        if name == "fail":
            raise KeyError("boom")
        if name == "slow":
            await asyncio.sleep(0.5)
            self.total = 99
        return "x" * 100

    async def finish(self, answer: str) -> float:
        return self.total / 10


@tool
def add(n: int): ...
@tool
def fail(): ...
@tool
def slow(): ...
@tool
def long(): ...


TASK = Task("t", None)  # type: ignore[arg-type]


async def begun(**limits: Any) -> Counter:
    session = Counter(**limits)
    await session.reset(TASK, 0)
    return session


async def test_calls_of_one_message_run_in_order_and_are_answered_by_id():
    session = await begun()
    asked = [("add", {"n": 1}, "a"), ("ad", {}, "b"), ("add", {"n": -1}, "c"), ("add", {"n": "2"}, "d")]
    step = await session.step(Message("assistant", "all", tuple(ToolCall(*one) for one in asked)))
    assert [(m.role, m.tool_call_id, m.name) for m in step.observation.messages] == [
        ("tool", "a", "add"),
        ("tool", "b", "ad"),
        ("tool", "c", "add"),
        ("tool", "d", "add"),
    ]
    said = [m.content for m in step.observation.messages]
    assert said[0] == '{"total":1,"é":[1,2]}'
    assert said[1].startswith("error: no tool 'ad'; did you mean 'add'?")
    assert said[2] == "error: n must not be negative"
    assert json.loads(said[3])["total"] == 3
    assert (step.done, step.reward) == (False, None)
    end = await session.step(Message("assistant", "done"))
    assert (end.done, end.reward) == (True, 0.3)


async def test_faults_are_raised_with_the_tools_name():
    with pytest.raises(EnvironmentFault, match="tool 'fail' failed: KeyError: 'boom'"):
        await (await begun()).step(call("fail"))
    session = await begun(call_seconds=0.05)
    with pytest.raises(EnvironmentFault, match=r"tool 'slow' took longer than 0.05 s"):
        await session.step(call("slow"))
    assert session.total == 0, "the call was interrupted"
    with pytest.raises(EnvironmentFault, match="not begun"):
        await Counter().step(call("add", n=1))
    with pytest.raises(EnvironmentFault, match="takes messages, not ndarray"):
        await (await begun()).step(np.zeros(2))
    session = await begun()
    await session.step(Message("assistant", "done"))
    with pytest.raises(EnvironmentFault, match="is over"):
        await session.step(call("add", n=1))


async def test_limits_on_length_and_steps():
    session = await begun(max_chars=10, max_steps=2)
    step = await session.step(call("long"))
    assert step.observation.messages[0].content == "x" * 10 + "... (cut: 10 of 100 characters)"
    step = await session.step(call("add", n=4))
    assert (step.done, step.reward, step.info) == (True, 0.4, {"limit": "max_steps"})
    assert step.observation.messages[0].name == "add"


async def test_a_call_ends_the_episode_and_those_after_it_are_not_run():
    session = await begun(max_steps=1)
    step = await session.step(Message("assistant", "", tuple(ToolCall("add", {"n": n}, f"c{n}") for n in (49, 1, 2))))
    assert (step.done, step.reward, step.info) == (True, 5.0, {})
    said = [m.content for m in step.observation.messages]
    assert said[1:] == ['{"total":50,"é":[1,2]}', "error: the episode is over; this call was not run"]
    other = Counter()
    await other.restore(await session.snapshot())
    assert (other.total, other.done) == (50, True)


async def test_fork_by_replay():
    session = await begun()
    await session.step(call("add", n=2))
    at_two = await session.snapshot()
    await session.step(call("add", n=5))
    other = Counter()
    await other.restore(at_two)
    assert (other.total, session.total) == (2, 7)
    assert (await other.step(Message("assistant", "done"))).reward == 0.2
    over = await other.snapshot()
    await session.restore(over)
    assert session.total == 2
    assert session.done
    await session.restore(at_two)
    assert not session.done


# -- World ---------------------------------------------------------------------------------------------------------


def sell(state: dict[str, int], item: str, count: int = 1) -> str:
    """Sell from the shelf."""
    if item not in state:
        raise ToolError(f"no item {item!r}")
    state[item] -= count
    return "sold"


async def measure(size: Size, places: list[Address]) -> list[str]:
    return [size.name, *(f"{type(p).__name__} {p.number}" for p in places)]


ROWS = [{"prompt": f"Sell {n} teas.", "want": n} for n in range(1, 201)]


def shop(**changes: Any) -> World:
    settings: dict[str, Any] = {
        "tools": [sell, measure],
        "tasks": ROWS,
        "score": lambda state, answer, row: float(state == {"tea": 500 - row["want"]}),
        "setup": lambda row: {"tea": 500},
        "instructions": "You keep a shop.",
    }
    return World(**{**settings, **changes})


async def test_world_plays_an_episode():
    world = shop()
    task = world.tasks("train")[0]
    session = world.open()
    first = await session.reset(task, 0)
    assert first.messages == (Message("system", "You keep a shop."), Message("user", task.data["prompt"]))
    assert list(session.tools[0]["parameters"]["properties"]) == ["item", "count"]
    assert session.current_reward() == 0.0
    said = await session.step(call("measure", size="l", places=[{"city": "Rome"}, {"city": "Bonn", "number": 3}]))
    assert said.observation.messages[0].content == '["LARGE","Address 1","Address 3"]'
    await session.step(call("sell", item="tea", count=task.data["want"]))
    assert session.current_reward() == 1.0
    assert (await session.step(Message("assistant", "Sold."))).reward == 1.0


async def test_world_forks_its_state():
    world = shop()
    session, other = world.open(), world.open()
    await session.reset(world.tasks("train")[0], 0)
    await session.step(call("sell", item="tea", count=10))
    snapshot = await session.snapshot()
    await session.step(call("sell", item="tea", count=10))
    await other.restore(snapshot)
    await other.step(call("sell", item="tea", count=1))
    await session.restore(snapshot)
    assert (session.state, other.state) == ({"tea": 490}, {"tea": 489})


def test_world_splits_and_ids_do_not_depend_on_order():
    world, backwards = shop(), shop(tasks=ROWS[::-1])
    for split in ("train", "dev", "test"):
        assert {t.id for t in world.tasks(split)} == {t.id for t in backwards.tasks(split)}
    sizes = [len(world.tasks(split)) for split in ("train", "dev", "test")]
    assert sum(sizes) == 200
    assert 140 <= sizes[0] <= 180
    assert min(sizes) > 5
    given = shop(tasks=[{"prompt": "a", "split": "extra", "id": "mine", "domain": "d", "skills": ["x"]}])
    task = given.tasks("extra")[0]
    assert (task.id, task.domain, task.skills) == ("mine", "d", ("x",))


def test_world_reads_json_lines(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    assert [t.id for t in shop(tasks=file).tasks("train")] == [t.id for t in shop().tasks("train")]
    file.write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(FormatError, match=r"tasks.jsonl:2 is not JSON"):
        shop(tasks=file)


def test_world_refuses_what_does_not_fit():
    with pytest.raises(PartError, match="tool 'sell' takes `state`; give setup="):
        shop(setup=None)
    with pytest.raises(PartError, match="two tools share a name"):
        shop(tools=[sell, sell])
    with pytest.raises(FormatError, match="task 2 has no text in 'prompt'"):
        shop(tasks=[{"prompt": "a"}, {"text": "b"}])
    with pytest.raises(FormatError, match="tasks 1 and 2 have the same id"):
        shop(tasks=[{"prompt": "a"}, {"prompt": "a"}])
    with pytest.raises(PartError, match="no split 'tests'; did you mean 'test'"):
        shop().tasks("tests")


async def test_world_scores_may_be_async_and_must_be_in_range():
    async def score(state, answer, row):
        return {"half": 0.5, "nan": float("nan"), "two": 2.0}[answer]

    world = shop(score=score)
    session = world.open()
    await session.reset(world.tasks("train")[0], 0)
    assert (await session.step(Message("assistant", "half"))).reward == 0.5
    for answer in ("nan", "two"):
        await session.reset(world.tasks("train")[0], 0)
        with pytest.raises(ScoreError, match="outside reward_range"):
            await session.step(Message("assistant", answer))


def test_sampling_is_a_resumable_stream():
    world, other = shop(), shop()
    assert [t.id for t in world.sample(8, seed=3)] == [t.id for t in other.sample(8, seed=3)]
    draws = [[t.id for t in world.sample(4)] for _ in range(3)]
    assert draws[0] != draws[1]
    assert all(len(set(draw)) == 4 for draw in draws)
    other.sample(4)
    resumed = shop()
    resumed.load_state_dict(other.state_dict())
    assert [t.id for t in resumed.sample(4)] == draws[1]
    assert {t.split for t in world.sample(4, split="test")} == {"test"}
    with pytest.raises(EnvironmentFault, match="no tasks to sample"):
        shop(tasks=[{"prompt": "a", "split": "test"}]).sample(1)


class Chat(ToolSession):
    """Answers words twice, then takes them as the answer."""

    async def begin(self, task, seed):
        self.tools = []
        return Observation((Message("user", "one"),))

    async def reply(self, said):
        heard = sum(not action.tool_calls for action in self.actions)
        return [Message("user", f"{said}?")] if heard < 3 else None

    async def finish(self, answer):
        return float(answer == "c")


async def test_a_world_may_answer_words_before_it_takes_them_as_the_answer():
    session = Chat()
    await session.reset(Task("chat", None), 0)
    steps = [await session.step(Message("assistant", text)) for text in "abc"]
    assert [s.observation.messages for s in steps] == [(Message("user", "a?"),), (Message("user", "b?"),), ()]
    assert [(s.done, s.reward) for s in steps] == [(False, None), (False, None), (True, 1.0)]
    short = Chat(max_steps=2)
    await short.reset(Task("chat", None), 0)
    await short.step(Message("assistant", "a"))
    assert (await short.step(Message("assistant", "b"))).info == {"limit": "max_steps"}


# -- games in workers ------------------------------------------------------------------------------------------------

STAIRS = """
class Stairs:
    def begin(self, top):
        self.top, self.at = top, 0
        return self.told("down here")

    def act(self, command):
        self.at += int(command)
        return self.told(f"step {self.at}")

    def told(self, text):
        return {"text": text, "score": self.at / self.top, "over": abs(self.at) == self.top}

    def solution(self, top):
        return ["1"] * top
"""
UP = {"name": "act", "description": "", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}}


@pytest.fixture
def stairs(tmp_path):
    (tmp_path / "stairs.py").write_text(STAIRS)
    crews = [Crew(f"{tmp_path / 'stairs.py'}:Stairs", size=size) for size in (2, 1)]
    yield crews
    for crew in crews:
        crew.close()


async def test_a_game_s_rewards_add_up_to_its_score_to_the_last_bit(stairs):
    games, solvers = stairs
    session = GameSession(games, [UP], "Climb.")
    assert 2 / 6 + (5 / 6 - 2 / 6) + (6 / 6 - 5 / 6) != 1.0  # plain differences do not
    for top, climbed in ((6, ["2", "3", "1"]), (7, solvers.ask("solution", top=7))):
        first = await session.reset(Task("t", None, data={"top": top}), 0)
        assert [message.content for message in first.messages] == ["Climb.", "down here"]
        steps = [await session.step(message) for message in acts(climbed)]
        assert sum(step.reward for step in steps) == 1.0
        assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[0].reward == int(climbed[0]) / top
    await session.reset(Task("t", None, data={"top": 2}), 0)
    down = ToolCall("act", {"command": "-1"})
    lost = await session.step(Message("assistant", "", (down, down, down)))
    assert (lost.reward, lost.done) == (-1.0, True)
    assert lost.observation.messages[-1].content == "error: the episode is over; this call was not run"
    await session.close()


async def test_a_game_is_forked_by_replay_and_given_up_by_words(stairs):
    session, fork = (GameSession(stairs[0], [UP], "Climb.") for _ in range(2))
    await session.reset(Task("t", None, data={"top": 2}), 0)
    await session.step(call("act", command="1"))
    await fork.restore(await session.snapshot())
    assert (await fork.step(call("act", command="1"))).reward == 0.5
    given_up = await session.step(Message("assistant", "enough"))
    assert (given_up.reward, given_up.done, session.score) == (0.0, True, 0.5)
    for one in (session, fork):
        await one.close()
