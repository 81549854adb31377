"""evaluation/conformance: each way to break a world is found by the check that it belongs to, and by no other."""

import asyncio
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from etude.core import parts
from etude.core.errors import EnvironmentFault, MissingExtra
from etude.environments.base import Tasks, ToolSession
from etude.environments.hosted import HostedSession
from etude.evaluation import plays
from etude.evaluation.conformance import CHECKS, Report, conformance
from etude.protocols import Observation, Task
from etude.tools.process import Crew
from etude.trajectory import Message, ToolCall

WORDS = {"train": ["apple", "pear", "plum"], "dev": ["cherry", "fig"], "test": ["banana", "grape"]}
ADD = {
    "name": "add",
    "description": "add to the total",
    "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}


class Counting(ToolSession):
    """Make the total the length of a word."""

    def __init__(self, **limits: Any):
        super().__init__(**{"max_steps": 6, **limits})

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools = [ADD]
        self.data, self.numbers = task.data, list[int]()
        return Observation((Message("user", f"Make the total the length of {task.data['word']}."),))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.numbers.append(arguments["n"])
        return f"the total is {sum(self.numbers)}" + "." * 200

    def current_reward(self) -> float:
        return float(sum(self.numbers) == len(self.data["word"]))

    async def finish(self, answer: str) -> float:
        return self.current_reward()

    def save(self) -> list[int]:
        return list(self.numbers)

    def load(self, state: list[int]) -> None:
        self.numbers = list(state)


class Sound(Tasks):
    """A world without fault, of which each broken one changes a thing."""

    name = "sound"
    reward_range = (0.0, 1.0)
    session: ClassVar[Callable[[], Any]] = Counting

    def tasks(self, split: str) -> list[Task]:
        return [self.task(split, i, word) for i, word in enumerate(WORDS[split])]

    def task(self, split: str, i: int, word: str) -> Task:
        data = {"word": word, "answer": f"secret {word}"}
        return Task(f"sound/{split}/{i}", self, split, data, "fruit", float(len(word)), ("counting",), "the test")

    def open(self) -> Any:
        return type(self).session()

    def solve(self, task: Task, seed: int) -> list[Message]:
        length = len(task.data["word"])
        calls = [ToolCall("add", {"n": n}, f"call_{n}") for n in (1, length - 1)]
        return [*(Message("assistant", tool_calls=(call,)) for call in calls), Message("assistant", "done")]


async def judge(make: Callable[[], Any], name: str = "") -> Report:
    return await conformance(make, name=name, episodes=6, at_once=8)


def failed(report: Report) -> dict[str, list[str]]:
    return {name: outcome.problems for name, outcome in report.checks.items() if outcome.problems}


def with_session(session: type) -> type[Sound]:
    return type(session.__name__, (Sound,), {"session": session})


# -- ways to break it ------------------------------------------------------------------------------------------------


class SameIds(Sound):
    def task(self, split: str, i: int, word: str) -> Task:
        return replace(super().task(split, i, word), id=f"sound/{i}")


class OtherSplit(Sound):
    def task(self, split: str, i: int, word: str) -> Task:
        return replace(super().task(split, i, word), split="train")


class NewTasks(Sound):
    made = itertools.count()

    def __init__(self) -> None:
        self.n = next(self.made)

    def task(self, split: str, i: int, word: str) -> Task:
        made = super().task(split, i, word)
        return replace(made, id=f"{made.id}/{self.n}")


class NoTasks(Sound):
    def tasks(self, split: str) -> list[Task]:
        return []


class NoProvenance(Sound):
    def task(self, split: str, i: int, word: str) -> Task:
        return replace(super().task(split, i, word), provenance="")


class NoDifficulty(Sound):
    def task(self, split: str, i: int, word: str) -> Task:
        return replace(super().task(split, i, word), difficulty=math.nan)


class Twins(Sound):
    def task(self, split: str, i: int, word: str) -> Task:
        return super().task(split, i, "apple" if i == 0 else word)


class ShortSolution(Sound):
    def solve(self, task: Task, seed: int) -> list[Message]:
        return super().solve(task, seed)[1:]


class EmptySolution(Sound):
    def solve(self, task: Task, seed: int) -> list[Message]:
        return []


class Unsolved(Sound):
    """Has solutions of the split train alone."""

    def solve(self, task: Task, seed: int) -> list[Message]:
        if task.split not in self.solved:
            raise EnvironmentFault(f"{task.id} has no solution")
        return super().solve(task, seed)

    solved: ClassVar[tuple[str, ...]] = ("train",)


class TwoOfAName(Counting):
    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        self.tools = [ADD, ADD]
        return first


class WrongSchema(Counting):
    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        self.tools = [{**ADD, "parameters": {"type": "object", "properties": {"n": {"type": "whole"}}}}]
        return first


class NoDescription(Counting):
    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        self.tools = [{**ADD, "description": ""}]
        return first


class WritesData(Counting):
    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.data["calls"] = self.data.get("calls", 0) + 1
        return await super().call(name, arguments)


class Forgetful(Counting):
    made = itertools.count()

    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        return Observation((*first.messages, Message("user", f"This is episode {next(self.made)}.")))


class SharedSnapshot(Counting):
    def save(self) -> list[int]:
        return self.numbers

    def load(self, state: list[int]) -> None:
        self.numbers = state


class HalfASnapshot(Counting):
    def save(self) -> list[int]:
        return self.numbers[1:]


class SharedState(Counting):
    held: ClassVar[list[int]] = []

    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        self.held.clear()
        self.numbers = self.held
        return first

    def load(self, state: list[int]) -> None:
        self.numbers[:] = state


class Crowded(Counting):
    live = 0

    def __init__(self) -> None:
        super().__init__()
        Crowded.live += 1

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(0)  # lets the others in
        return "busy" if Crowded.live > 3 else await super().call(name, arguments)

    async def close(self) -> None:
        Crowded.live -= 1


class Brittle(Counting):
    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if len(self.numbers) == 4:
            raise KeyError("the fifth number")
        return await super().call(name, arguments)


class Generous(Counting):
    async def finish(self, answer: str) -> float:
        return 2 * self.current_reward()


class Undefined(Counting):
    async def finish(self, answer: str) -> float:
        return self.current_reward() or math.nan


class Raises(Counting):
    async def _answer(self, call: ToolCall) -> Message:
        return await super()._answer(replace(call, arguments=dict(call.arguments)))


class Silent(Counting):
    async def _answer(self, call: ToolCall) -> Message:
        answer = await super()._answer(call)
        return answer if call.arguments else replace(answer, content="")


class Tells(Counting):
    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        return Observation((Message("system", f"(Answer: {task.data['answer']}.)"), *first.messages))


class TellsInTools(Counting):
    async def begin(self, task: Task, seed: int) -> Observation:
        first = await super().begin(task, seed)
        self.tools = [{**ADD, "description": f"add to the total; {task.data['answer']}"}]
        return first


class TellsMistakes(Counting):
    async def _answer(self, call: ToolCall) -> Message:
        answer = await super()._answer(call)
        return replace(answer, content=f"There is no such tool in {self.data}.") if call.name != "add" else answer


class Secretive(Sound):
    session = TellsMistakes

    def secrets(self, task: Task) -> list[str]:
        return [task.data["answer"]]


class Endless(Counting):
    async def step(self, action: Any) -> Any:
        self.actions = []
        return await super().step(action)


class Wordy(Counting):
    async def _answer(self, call: ToolCall) -> Message:
        self.max_chars = 4000
        return await super()._answer(call)


class Patient(Counting):
    async def _run(self, call: ToolCall) -> str:
        self.call_seconds = 30.0
        return await super()._run(call)


BROKEN = [
    (SameIds, "splits", "the id 'sound/0' is in train and again in dev"),
    (OtherSplit, "splits", "task sound/dev/0 of dev says that it is of 'train'"),
    (NewTasks, "splits", "made once more, the world has other tasks in train"),
    (NoTasks, "splits", "no tasks in train, dev or test"),
    (NoProvenance, "fields", "has no provenance"),
    (NoDifficulty, "fields", "has difficulty nan"),
    (Twins, "apart", "task sound/dev/0 of dev is task sound/train/0 of train"),
    (ShortSolution, "gold", "solve earns 0 of 1"),
    (EmptySolution, "gold", "solve earns 0 of 1, not over after its 0 messages"),
    (with_session(TwoOfAName), "tools", "has two tools 'add'"),
    (with_session(WrongSchema), "tools", "'whole' is not valid"),
    (with_session(NoDescription), "tools", "it has no description"),
    (with_session(WritesData), "data", "its data changed"),
    (with_session(Forgetful), "same_seed", "played twice: "),
    (with_session(SharedSnapshot), "fork", "restored in the same session: "),
    (with_session(HalfASnapshot), "fork", "restored in another session: "),
    (with_session(SharedState), "isolation", "with another session of it played in between: "),
    (with_session(Crowded), "at_once", "played beside 7 others: "),
    (with_session(Brittle), "faults", "KeyError: 'the fifth number'"),
    (with_session(Generous), "rewards", "2 is outside reward_range 0 to 1"),
    (with_session(Undefined), "rewards", "are not finite"),
    (with_session(Raises), "bad_calls", 'arguments that are not JSON, add("{\\""): raised ValueError'),
    (with_session(Silent), "bad_calls", "an unknown tool, no_such_tool({}): not answered"),
    (with_session(Tells), "secrets", "shows 'secret apple'"),
    (with_session(TellsInTools), "secrets", "shows 'secret apple'"),
    (Secretive, "secrets", "shows 'secret apple'"),
    (with_session(Endless), "limits", "max_steps is 6, and after 6 messages the episode is not over"),
    (with_session(Wordy), "limits", "max_chars is 20, and add("),
    (with_session(Patient), "limits", "call_seconds is 0, and add("),
]


@pytest.mark.parametrize(("world", "check", "words"), BROKEN, ids=[world.__name__ for world, _, _ in BROKEN])
async def test_a_broken_world_is_told_its_fault_and_no_other(world: type[Sound], check: str, words: str):
    found = failed(await judge(world))
    assert list(found) == [check], found
    assert any(words in problem for problem in found[check]), found[check]


def test_every_check_has_a_world_that_breaks_it():
    assert {check for _, check, _ in BROKEN} | {"baselines"} == set(CHECKS)  # which measures, and refuses nothing


async def test_a_sound_world_passes():
    report = await judge(Sound)
    assert {outcome.word for outcome in report.checks.values()} == {"passed"}, report
    assert report.figures["tasks"] == {"train": 3, "dev": 2, "test": 2}
    assert report.figures["gold"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "episodes": 6}


async def test_what_depends_on_a_failed_check_is_skipped():
    report = await judge(with_session(Forgetful))
    skipped = {name: outcome.skipped for name, outcome in report.checks.items() if outcome.skipped}
    assert set(skipped) == {"apart", "fork", "isolation", "at_once"}
    assert skipped["fork"] == "same_seed did not pass"


# -- another process -------------------------------------------------------------------------------------------------

HASHED = """
from dataclasses import dataclass
from etude.environments.base import Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.trajectory import Message

class Session(ToolSession):
    async def begin(self, task, seed):
        return Observation((Message("user", "Say one of " + ", ".join({shown})),))

    async def finish(self, answer):
        return float(answer == "a")

@dataclass(eq=False)
class world(Tasks):
    name = "hashed"
    reward_range = (0.0, 1.0)

    def tasks(self, split):
        return [Task(f"{{split}}/{{i}}", self, split, {data}, provenance="here") for i in range(3)]

    def open(self):
        return Session()

    def solve(self, task, seed):
        return [Message("assistant", "a")]

made = world()
"""


@pytest.mark.parametrize(
    ("shown", "data", "check"),
    [
        ('sorted({*"abcdefgh"})', '{"n": i, "split": split}', None),
        ('{*"abcdefgh"}', '{"n": i, "split": split}', "same_seed"),
        ('sorted({*"abcdefgh"})', '{"n": hash((split, i))}', "splits"),
    ],
)
async def test_what_hangs_on_the_hashes_of_texts_is_found_in_another_process(tmp_path, shown, data, check):
    (tmp_path / "mine.py").write_text(HASHED.format(shown=shown, data=data))
    for name in ("world", "made"):
        place = f"{tmp_path / 'mine.py'}:{name}"
        report = await judge(lambda place=place: plays.build(place), place)
        assert list(failed(report)) == ([check] if check else []), failed(report)


# -- workers ---------------------------------------------------------------------------------------------------------

TOTAL = """
class Total:
    def begin(self):
        self.total = 0

    def add(self, n):
        self.total += n
        return self.total
"""


class Careless(Crew):
    """Lets its workers have any amount of memory."""

    @property
    def memory_mb(self) -> float:
        return math.inf

    @memory_mb.setter
    def memory_mb(self, limit: float) -> None: ...


@pytest.mark.parametrize(("kind", "words"), [(Crew, None), (Careless, "memory_mb of the workers is 0")])
async def test_the_memory_of_workers_is_limited(tmp_path, kind: type[Crew], words: str | None):
    (tmp_path / "total.py").write_text(TOTAL)
    crew = kind(f"{tmp_path / 'total.py'}:Total", size=8)

    class Hosted(HostedSession):
        async def begin(self, task: Task, seed: int) -> Observation:
            self.tools, self.length, self.total = [ADD], len(task.data["word"]), 0
            await self.ask("begin")
            return Observation((Message("user", f"Make the total the length of {task.data['word']}."),))

        async def call(self, name: str, arguments: dict[str, Any]) -> int:
            self.total = await self.ask("add", n=arguments["n"])
            return self.total

        async def finish(self, answer: str) -> float:
            return float(self.total == self.length)

    found = failed(await judge(type("world", (Sound,), {"session": lambda: Hosted(crew, max_steps=6)})))
    crew.close()
    assert list(found) == (["limits"] if words else []), found
    assert words is None or words in found["limits"][0]
    assert crew.hired == 0


# -- figures ---------------------------------------------------------------------------------------------------------


class Free(Counting):
    """Pays for nothing where the word is short."""

    def current_reward(self) -> float:
        return 1.0 if not self.numbers and len(self.data["word"]) < 5 else super().current_reward()


async def test_what_doing_nothing_earns_is_measured_and_told():
    report = await judge(with_session(Free))
    assert report.passed
    nothing = report.figures["nothing"]
    chosen = [task for split in WORDS for task in Sound().tasks(split)]
    assert len(chosen) == 7
    assert nothing["episodes"] == 6
    assert nothing["mean"] in (2 / 6, 3 / 6)  # pear, plum and fig are short, of which one may be left out
    assert nothing["low"] < nothing["mean"] < nothing["high"]
    assert any("doing nothing earns" in note for note in report.checks["baselines"].notes)


async def test_where_solve_need_not_be_best_gold_is_a_lower_bound():
    report = await judge(type("modest", (ShortSolution,), {"optimal": False}))
    assert report.passed
    assert report.figures["gold"]["mean"] == 0
    assert report.checks["gold"].notes == ["solve need not reach the maximum: gold is a lower bound of it"]


async def test_a_solution_that_goes_on_after_the_end_is_forked_where_it_was_played():
    class Wordy(Sound):
        def solve(self, task: Task, seed: int) -> list[Message]:
            return [*super().solve(task, seed), *(Message("assistant", "and more") for _ in range(9))]

    assert not failed(await judge(Wordy))


async def test_a_world_need_not_know_every_solution():
    report = await judge(Unsolved)
    assert report.passed
    assert report.figures["gold"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "episodes": 2}
    assert report.checks["gold"].notes == ["solve has no solution of 4 of 6 tasks"]
    report = await judge(type("unsolved", (Unsolved,), {"solved": ()}))
    assert report.passed
    assert report.checks["gold"].skipped == "solve has no solution of any of 6 tasks"
    assert "gold" not in report.figures


async def test_a_world_of_few_sessions_is_played_with_as_many():
    report = await judge(type("few", (with_session(Crowded),), {"at_once": 3}))
    assert report.passed, failed(report)


# -- built-in worlds -------------------------------------------------------------------------------------------------


WHOLE = {  # worlds that want a setting
    "gym": "{gym: {id: FrozenLake-v1, reward_range: [0, 1]}}",
    "lessons": "{lessons: {world: devices}}",
    "scaled": "{scaled: {train: 200}}",  # its tasks are drawn one by one
}


ELSEWHERE = ("openenv", "verifiers")  # their own tests do it, with a server and with another interpreter
NAMES = [WHOLE.get(name, name) for name in parts.find("environments") if name not in ELSEWHERE]


@pytest.mark.parametrize("name", NAMES)
async def test_a_built_in_world_passes(name: str):
    try:
        plays.splits(plays.build(name))
    except MissingExtra as missing:
        pytest.skip(str(missing))
    report = await conformance(lambda: plays.build(name), name=name, episodes=6, at_once=8)
    assert not failed(report)
