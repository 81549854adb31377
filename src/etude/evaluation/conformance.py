"""Does a world keep its word? What every environment must hold to, and what it pays for nothing, by chance and at best.

Each check is a function that plays the world and says what it found; its docstring is what must hold. One that can
only be judged where others passed names them (`@check("same_seed")`) and is skipped where they did not, so that of a
broken world the cause is told and not every consequence.

Three figures belong to each score on a world: `nothing` (one empty answer; several public suites pay for that),
`random` (`RandomAgent`) and `gold` (the world's own `solve`), each a mean reward with its bootstrap interval.
"""

import asyncio
import contextlib
import copy
import gc
import itertools
import json
import math
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from etude.core.errors import EnvironmentFault
from etude.environments.functions import check_call
from etude.environments.hosted import HostedSession
from etude.evaluation import plays
from etude.evaluation.plays import MOST, TURNS, Actor, Play, brief, difference, dumps, opened, scripted
from etude.evaluation.random_agent import RandomAgent
from etude.evaluation.statistics import mean_interval
from etude.protocols import Environment, Session, Task
from etude.tools.process import Crew
from etude.trajectory import Message, ToolCall

FEW = 4  # tasks that are played several times over
AT_ONCE = 64
NOTICE = 80  # characters that may say that a result was cut
ANSWERS = ("answer", "answers", "gold", "solution", "solutions", "expected", "target", "label", "ground_truth")
ODD = ("", "\x00", "x" * 50_000)
HALF = "\ud800"  # of a surrogate pair: in no text that a model says, but its JSON can write one
FAR = (-1, 10**30, math.nan)
SHORT = 4  # a likely answer of fewer characters is found in any text
WRONG = Message("assistant", tool_calls=(ToolCall("no_such_tool", {}, "call_1"),))
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the interfaces of models allow
EXACT = 1e-6  # rewards add up in floating point


# -- what comes out --------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What one check found."""

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    """What is good to know and no breach."""
    skipped: str = ""
    """Why it was not judged."""

    @property
    def word(self) -> str:
        return "failed" if self.problems else "skipped" if self.skipped else "passed"


@dataclass
class Report:
    """How a world did."""

    world: str
    checks: dict[str, Outcome]
    figures: dict[str, Any]
    """`tasks` by split; `nothing`, `random` and `gold`, each `{mean, low, high, episodes}`; `reset_ms`, `step_ms` and
    `step_ms_95`; `memory_mb` gained over `memory_episodes`."""

    @property
    def passed(self) -> bool:
        return not any(outcome.problems for outcome in self.checks.values())


class Skip(Exception):
    """The check does not apply, or cannot be judged; the text says why."""


Judge = Callable[["Bench", Outcome], Awaitable[None]]
CHECKS: dict[str, tuple[Judge, tuple[str, ...]]] = {}
"""Name -> the check and those that must have passed before it, in the order in which they run."""


def check(*needs: str) -> Callable[[Judge], Judge]:
    def register(judge: Judge) -> Judge:
        CHECKS[judge.__name__] = judge, needs
        return judge

    return register


class Bench:
    """A world under test, and what was played in it so far."""

    def __init__(self, make: Callable[[], Any], name: str, episodes: int, at_once: int):
        self.make, self.name = make, name
        self.world: Environment = make()
        self.splits = plays.splits(self.world)
        self.places = self.choose(episodes)
        self.tasks = self.at(self.places)
        self.most = getattr(self.world, "at_once", AT_ONCE)
        self.at_once = min(at_once, self.most)
        self.played: list[Play] = []
        self.twins: list[tuple[Task, Task]] = []
        """Tasks of two splits with the same data."""
        target, settings = f"{plays.__name__}:{plays.Elsewhere.__name__}", {"world": name}
        self.crew = Crew(target, settings=settings, env={"PYTHONHASHSEED": "7"}, seconds=600, memory_mb=8192)
        self.figures: dict[str, Any] = {"tasks": {split: len(tasks) for split, tasks in self.splits.items()}}

    def choose(self, count: int) -> list[tuple[str, int]]:
        """Split and place of so many tasks, or as many as there are, from all splits alike; always the same."""
        pools = []
        for split, tasks in self.splits.items():
            length = min(len(tasks), MOST)
            pools.append([(split, i) for i in random.Random(split).sample(range(length), min(count, length))])
        return [pool[n] for n in range(count) for pool in pools if n < len(pool)][:count]

    def at(self, places: Sequence[tuple[str, int]]) -> list[Task]:
        return [self.splits[split][i] for split, i in places]

    async def play(self, task: Task, actor: Actor, *, turns: int | None = None) -> Play:
        """An episode in a session of its own, kept for the checks that look at all of them."""
        self.played.append(await plays.alone(self.world, task, actor, turns=turns))
        return self.played[-1]

    async def random(self, task: Task) -> Play:
        return await self.play(task, RandomAgent(task.id), turns=TURNS)

    def measure(self, name: str, made: Sequence[Play]) -> float:
        """Keep the mean reward of plays as a figure."""
        rewards = [play.reward for play in made if not play.fault]
        found = mean_interval(np.array(rewards)) if rewards else None
        mean, low, high = (found.mean, found.low, found.high) if found else (math.nan,) * 3
        self.figures[name] = {"mean": mean, "low": low, "high": high, "episodes": len(rewards)}
        return mean


async def conformance(
    make: Callable[[], Any],
    *,
    name: str = "",
    episodes: int = 24,
    at_once: int = AT_ONCE,
    on_check: Callable[[str], None] = lambda check_name: None,
) -> Report:
    """Run all checks.

    make: makes the world.
    name: what `plays.build` makes the same world from, in another process; '' for a world that only this one can make.
    episodes: of each of the three baselines, over the world's splits.
    at_once: episodes that are played at once, where the world allows as many.
    on_check: called with the name of each check before it runs.
    """
    bench = Bench(make, name, episodes, at_once)
    checks: dict[str, Outcome] = {}
    for check_name, (judge, needs) in CHECKS.items():
        on_check(check_name)
        outcome = checks[check_name] = Outcome()
        missing = [need for need in needs if checks[need].word != "passed"]
        if missing:
            outcome.skipped = f"{missing[0]} did not pass"
            continue
        try:
            await judge(bench, outcome)
        except Skip as skip:
            outcome.skipped = str(skip)
        except Exception as error:
            outcome.problems.append(f"{type(error).__name__}: {error}")
    bench.crew.close()
    return Report(bench.world.name, checks, bench.figures)


# -- tasks -----------------------------------------------------------------------------------------------------------


@check()
async def splits(bench: Bench, found: Outcome) -> None:
    """Ids are unique, no task is in two splits, and a world made anew, here or elsewhere, has the same tasks."""
    if not bench.splits:
        found.problems.append("no tasks in train, dev or test")
    ours: dict[str, str] = {}
    home: dict[str, str] = {}
    alike: dict[str, Task] = {}
    for split in bench.splits:
        tasks = list(itertools.islice(bench.splits[split], MOST))
        ours[split] = plays.fingerprint(tasks)
        for task in tasks:
            if task.id in home:
                found.problems.append(f"the id {task.id!r} is in {home[task.id]} and again in {split}")
            if task.split != split:
                found.problems.append(f"task {task.id} of {split} says that it is of {task.split!r}")
            home[task.id] = split
            first = alike.setdefault(dumps(task.data), task)
            if first.split != task.split:
                bench.twins.append((first, task))
    if bench.name:
        place, theirs = "in another process", await _elsewhere(bench, "fingerprints")
    else:
        again = plays.splits(bench.make()).items()
        place, theirs = "once more", {split: plays.fingerprint(itertools.islice(tasks, MOST)) for split, tasks in again}
    changed = [split for split in ours if ours[split] != theirs.get(split)]
    found.problems += [f"made {place}, the world has other tasks in {split}" for split in changed]


@check()
async def fields(bench: Bench, found: Outcome) -> None:
    """Tasks say where they come from, and how hard they are."""
    for task in bench.tasks:
        if not task.provenance:
            found.problems.append(f"task {task.id} has no provenance: say what it was made from")
        if not math.isfinite(task.difficulty):
            found.problems.append(f"task {task.id} has difficulty {task.difficulty}")
    for name in ("domain", "skills"):
        if not all(getattr(task, name) for task in bench.tasks):
            found.notes.append(f"some tasks have no {name}, by which they could be chosen and told apart")
    if len({task.difficulty for task in bench.tasks}) == 1:
        found.notes.append(f"all tasks that were looked at have difficulty {bench.tasks[0].difficulty:g}")


@check("splits")
async def tools(bench: Bench, found: Outcome) -> None:
    """Tools are `{name, description, parameters}` with names of their own and valid JSON schemas of an object."""
    seen: set[str] = set()
    for task in bench.tasks:
        async with opened(bench.world) as session:
            await session.reset(task, 0)
            names = [tool.get("name") for tool in session.tools]
            found.problems += [f"task {task.id} has two tools {n!r}" for n in {*names} if names.count(n) > 1]
            for tool in session.tools:
                if (text := dumps(tool)) not in seen:
                    seen.add(text)
                    found.problems += [f"task {task.id}, tool {tool.get('name')!r}: {told}" for told in _wrong(tool)]


def _wrong(tool: Mapping[str, Any]) -> list[str]:
    """What is wrong with a tool's description."""
    if not isinstance(tool.get("name"), str) or not NAME.fullmatch(tool["name"]):
        return ["a name has 1 to 64 letters, digits, _ or -"]
    if not isinstance(tool.get("description"), str) or not tool["description"]:
        return ["it has no description"]
    parameters = tool.get("parameters")
    if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties"), Mapping):
        return [f"parameters are {parameters!r}; expected the schema of an object with properties"]
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        return [f"the schema is not valid at {error.json_path}: {error.message}"]
    absent = [name for name in parameters.get("required", ()) if name not in parameters["properties"]]
    return [f"{absent} are required and have no schema"] if absent else []


# -- play ------------------------------------------------------------------------------------------------------------


@check("tools")
async def data(bench: Bench, found: Outcome) -> None:
    """Play does not change a task's data, on which the reward depends."""
    for task in bench.tasks[:FEW]:
        before = dumps(task.data)
        await bench.random(task)
        if script := _script(bench, task):
            await bench.play(task, scripted(script))
        if dumps(task.data) != before:
            found.problems.append(f"task {task.id}: its data changed, {difference([before], [dumps(task.data)])}")


@check("tools", "data")
async def same_seed(bench: Bench, found: Outcome) -> None:
    """The same task, seed and actions give the same episode, here and in another process."""
    few = bench.tasks[:FEW]
    first = [(await bench.random(task)).record for task in few]
    others = {"twice": [(await bench.random(task)).record for task in few]}
    if bench.name:
        others["in another process"] = await _elsewhere(bench, "episodes", places=bench.places[:FEW])
    for place, records in others.items():
        for task, one, other in zip(few, first, records, strict=True):
            if told := difference(one, other):
                found.problems.append(f"task {task.id}, played {place}: {told}")


@check("same_seed")
async def apart(bench: Bench, found: Outcome) -> None:
    """No task is in two splits under two names: with the same data, and the same in play."""
    for pair in bench.twins[:FEW]:
        one, other = [(await bench.play(task, RandomAgent("twin"), turns=TURNS)).record for task in pair]
        if not difference(one, other):
            found.problems.append(f"task {pair[1].id} of {pair[1].split} is task {pair[0].id} of {pair[0].split}")


@check("tools")
async def gold(bench: Bench, found: Outcome) -> None:
    """The world's own solutions reach its maximum."""
    if not hasattr(bench.world, "solve"):
        raise Skip("the world has no solve")
    made, most = [], bench.world.reward_range[1]
    optimal = getattr(bench.world, "optimal", True)
    for task in bench.tasks:
        if (script := _script(bench, task)) is not None:
            play = await bench.play(task, scripted(script))
            made.append(play)
            if optimal and not play.fault and play.reward < most - EXACT:
                at = "" if play.done else f", not over after its {len(script)} messages"
                found.problems.append(f"task {task.id}: solve earns {play.reward:g} of {most:g}{at}")
    if not made:
        raise Skip(f"solve has no solution of any of {len(bench.tasks)} tasks")
    bench.measure("gold", made)
    if len(made) < len(bench.tasks):
        found.notes.append(f"solve has no solution of {len(bench.tasks) - len(made)} of {len(bench.tasks)} tasks")
    if not optimal:
        found.notes.append("solve need not reach the maximum: gold is a lower bound of it")


@check("tools")
async def baselines(bench: Bench, found: Outcome) -> None:
    """Doing nothing and chance are measured. No amount of it is a breach, but whoever reports scores must know it."""
    least = bench.world.reward_range[0]
    nothing = [await bench.play(task, plays.idle, turns=1) for task in bench.tasks]
    chance = [await bench.random(task) for task in bench.tasks]
    for name, what, made in (("nothing", "doing nothing", nothing), ("random", "a random agent", chance)):
        mean = bench.measure(name, made)
        if mean > max(least, 0) + EXACT:
            found.notes.append(f"{what} earns {mean:.3g}: report scores above it")
    resets = [play.seconds[0] for play in chance if play.seconds]
    steps = [seconds for play in chance for seconds in play.seconds[1:]]
    if steps:
        bench.figures["reset_ms"] = 1000 * float(np.median(resets))
        bench.figures["step_ms"], bench.figures["step_ms_95"] = map(float, 1000 * np.quantile(steps, [0.5, 0.95]))


@check("same_seed")
async def fork(bench: Bench, found: Outcome) -> None:
    """A snapshot from the middle goes on to the same end: here, restored here, and restored in another session."""
    for task in bench.tasks[:FEW]:
        chance = (await bench.random(task)).actions
        for script in filter(None, [_script(bench, task), chance]):
            whole = await bench.play(task, scripted(script))
            half = len(whole.actions) // 2
            rest = whole.actions[half:]
            async with opened(bench.world) as one:
                begun = await plays.play(one, task, scripted(whole.actions[:half]))
                if begun.fault:
                    continue  # a fault is told by its own check
                snapshot = await one.snapshot()
                ends = {"gone on from": await plays.go_on(one, task, scripted(rest))}
                await one.restore(snapshot)
                ends["restored in the same session"] = await plays.go_on(one, task, scripted(rest))
                if bench.most > 1:
                    async with opened(bench.world) as other:
                        await other.restore(snapshot)
                        ends["restored in another session"] = await plays.go_on(other, task, scripted(rest))
            for what, end in ends.items():
                if told := difference(whole.record[len(begun.seen) :], end.record):
                    found.problems.append(f"task {task.id}, a snapshot of turn {half}, {what}: {told}")


@check("same_seed")
async def isolation(bench: Bench, found: Outcome) -> None:
    """What is done in one session is not felt in another."""
    if bench.most < 2:
        raise Skip("the world has one session at a time")
    for task in bench.tasks[:FEW]:
        script = _script(bench, task) or (await bench.random(task)).actions
        whole = await bench.play(task, scripted(script))
        half = len(whole.actions) // 2
        async with opened(bench.world) as one, opened(bench.world) as other:
            begun = await plays.play(one, task, scripted(whole.actions[:half]))
            await plays.play(other, task, RandomAgent(f"{task.id} beside it"), turns=TURNS)
            end = await plays.go_on(one, task, scripted(whole.actions[half:]))
        if told := difference(whole.record, begun.seen + end.record):
            found.problems.append(f"task {task.id}, with another session of it played in between: {told}")


@check("same_seed", "isolation")
async def at_once(bench: Bench, found: Outcome) -> None:
    """Many episodes at once go as they do one after the other. Measures what memory they leave behind."""
    tasks = bench.at(bench.choose(bench.at_once))
    tasks = [tasks[i % len(tasks)] for i in range(bench.at_once)]

    def actor(n: int) -> RandomAgent:
        return RandomAgent(f"{tasks[n].id} {n}")

    before = _megabytes()
    singly = [await bench.play(task, actor(n), turns=TURNS) for n, task in enumerate(tasks)]
    if before is not None:
        bench.figures["memory_mb"], bench.figures["memory_episodes"] = (_megabytes() or 0.0) - before, len(tasks)
    plays_at_once = (plays.alone(bench.world, task, actor(n), turns=TURNS) for n, task in enumerate(tasks))
    together = await asyncio.gather(*plays_at_once)
    for one, other in zip(singly, together, strict=True):
        if told := difference(one.record, other.record):
            found.problems.append(f"task {one.task.id}, played beside {len(tasks) - 1} others: {told}")


@check("tools")
async def faults(bench: Bench, found: Outcome) -> None:
    """Nothing was raised in all this play: what an agent does wrong is answered in words."""
    found.problems += dict.fromkeys(f"task {play.task.id}, {play.fault}" for play in bench.played if play.fault)


@check("tools")
async def rewards(bench: Bench, found: Outcome) -> None:
    """Rewards are finite, and an episode's is within `reward_range`."""
    low, high = bench.world.reward_range
    told: dict[str, None] = {}
    for play in bench.played:
        if not all(math.isfinite(reward) for reward in [*play.rewards, play.reward]):
            told[f"task {play.task.id}: the rewards {play.rewards or [play.standing]} are not finite"] = None
        elif not low - EXACT <= play.reward <= high + EXACT:
            told[f"task {play.task.id}: {play.reward:g} is outside reward_range {low:g} to {high:g}"] = None
    found.problems += told


# -- what an agent may do wrong, and what it may not learn ------------------------------------------------------------


@check("tools")
async def bad_calls(bench: Bench, found: Outcome) -> None:
    """A call that is wrong, or odd, is answered in words and never raised."""
    for task in bench.tasks[: FEW // 2]:
        async with opened(bench.world) as session:
            await session.reset(task, 0)
            for what, action in _mistakes(session, task):
                try:
                    step = await session.step(action)
                except Exception as error:
                    raised = f"raised {type(error).__name__}: {error}"
                    found.problems.append(f"task {task.id}, {what}, {brief(action)}: {raised}")
                    await session.reset(task, 0)
                    continue
                answered = any(m.role == "tool" and m.content for m in step.observation.messages)
                if action.tool_calls and not answered and not step.done:
                    found.problems.append(f"task {task.id}, {what}, {brief(action)}: not answered by a tool message")
                if step.done:
                    await session.reset(task, 0)


def _mistakes(session: Session, task: Task) -> list[tuple[str, Message]]:
    """What is wrong, or odd -> the message that is."""
    calls: list[tuple[str, Any, Any]] = [("an unknown tool", "no_such_tool", {}), ("a call without a name", "", {})]
    agent = RandomAgent(task.id)
    for tool in agent.rng.sample(session.tools, min(FEW, len(session.tools))):
        name, right = tool["name"], agent.call(tool).arguments
        properties = tool["parameters"]["properties"]
        calls += [
            ("arguments that are not JSON", name, '{"'),
            ("arguments that are a list", name, [1]),
            ("no arguments", name, {}),
            ("an unknown argument", name, {**right, "no_such_argument": 1}),
            ("arguments of a wrong type", name, {key: {"a": [None]} for key in properties}),
            ("null arguments", name, dict.fromkeys(properties)),
        ]
        for what, kinds, values in (
            ("odd text", ["string"], (*ODD, HALF)),
            ("an odd number", ["integer", "number"], FAR),
        ):
            typed = {key: inner.get("type") for key, inner in properties.items() if isinstance(inner, Mapping)}
            keys = [key for key, kind in typed.items() if kind in kinds]
            calls += [(what, name, right | dict.fromkeys(keys, value)) for value in values if keys]
    made = [(what, Message("assistant", "", (ToolCall(name, given, "call_1"),))) for what, name, given in calls]
    return made + [("an odd answer", Message("assistant", text)) for text in ODD]


@check("tools")
async def secrets(bench: Bench, found: Outcome) -> None:
    """The answer is not in what the agent is shown at first, nor in its tools, nor in what a mistake is answered."""
    declared = hasattr(bench.world, "secrets")
    for task in bench.tasks:
        hidden = bench.world.secrets(task) if declared else _likely(task.data)  # type: ignore[attr-defined]
        async with opened(bench.world) as session:
            first = await session.reset(task, 0)
            messages = list(first.messages)
            with contextlib.suppress(Exception):  # told by `bad_calls`
                messages += (await session.step(WRONG)).observation.messages if declared else ()
            shown = "\n".join([*(m.content for m in messages), json.dumps(session.tools, ensure_ascii=False)])
        for secret in hidden:
            if secret in shown if declared else re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", shown):
                hint = "" if declared else "; if it may be there, give the world `secrets(task)`, without it"
                found.problems.append(f"task {task.id} shows {secret[:60]!r} before the agent has done anything{hint}")
    if not declared:
        found.notes.append(f"the world declares no secrets; looked for the task's {', '.join(ANSWERS[:3])}, …")


def _likely(data: Mapping[str, Any]) -> list[str]:
    """Texts in a task's data that are likely its answer."""
    values = [value for key in ANSWERS if key in data for value in _listed(data[key])]
    return [value for value in values if isinstance(value, str) and len(value) >= SHORT]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@check("tools")
async def limits(bench: Bench, found: Outcome) -> None:
    """The limits that a session declares hold: `max_steps`, `max_chars`, `call_seconds`, and a worker's memory."""
    task = bench.tasks[0]
    async with opened(bench.world) as session:
        declared: Any = session
        await session.reset(task, 0)
        if (steps := getattr(session, "max_steps", None)) is not None:
            made = await plays.go_on(session, task, lambda tools, new: WRONG, turns=steps)
            if not made.done and not made.fault:
                found.problems.append(f"max_steps is {steps}, and after {steps} messages the episode is not over")
        else:
            found.notes.append("the world sets no limit on turns (max_steps); the run's max_turns does")
        if getattr(session, "max_chars", None) is not None:
            await session.reset(task, 0)
            declared.max_chars = 20
            found.problems += await _too_long(session, task)
    if getattr(session, "call_seconds", None) is not None:
        found.problems += await _too_slow(bench, task)
    if isinstance(session, HostedSession):
        async with opened(bench.world) as hosted:
            found.problems += await _too_large(hosted, task)  # type: ignore[arg-type]


async def _too_long(session: Session, task: Task) -> list[str]:
    """Answers are cut, those to mistakes too."""
    for action in [WRONG, *_calls(session, task)]:
        step = await session.step(action)
        for message in step.observation.messages:
            if message.role == "tool" and len(message.content) > 20 + NOTICE:
                return [f"max_chars is 20, and {brief(action)} was answered with {len(message.content)} characters"]
        if step.done:
            break
    return []


async def _too_slow(bench: Bench, task: Task) -> list[str]:
    """No time at all for a call must end the episode at the first one that would have run."""
    async with opened(bench.world) as session:
        declared: Any = session
        await session.reset(task, 0)
        declared.call_seconds, ran = 0.0, ""
        for action in _calls(session, task):
            try:
                step = await session.step(action)
            except EnvironmentFault:
                return []
            ran = brief(action)
            if step.done:
                break
    return [f"call_seconds is 0, and {ran} was answered all the same"] if ran else []


async def _too_large(session: HostedSession, task: Task) -> list[str]:
    """A worker that may use no memory must end, and the session must be usable afterwards.

    So ends the episode, unless the world tells the agent that it asked for too much, and hires another.
    """
    await session.reset(task, 0)
    allowed, session.crew.memory_mb = session.crew.memory_mb, 0.0
    try:
        assert session.worker is not None
        worker = session.worker
        worker.looked = 0.0  # it looks again at its next call
        await session.reset(task, 0)
        for action in _calls(session, task):
            if (await session.step(action)).done:
                break
        return ["memory_mb of the workers is 0, and they went on"] if worker.alive else []
    except EnvironmentFault:
        session.crew.memory_mb = allowed
        await session.reset(task, 0)  # raises where the session does not find itself another worker
        return []
    finally:
        session.crew.memory_mb = allowed


def _calls(session: Session, task: Task) -> list[Message]:
    """Calls that would run, of each tool in turn."""
    agent = RandomAgent(task.id)
    made = [agent.call(tool) for tool in session.tools for _ in range(2)]
    return [Message("assistant", tool_calls=(call,)) for call in made if not check_call(session.tools, call)]


# -- helpers ---------------------------------------------------------------------------------------------------------


def _script(bench: Bench, task: Task) -> list[Message] | None:
    """The world's solution of a task; None where it has none."""
    if not hasattr(bench.world, "solve"):
        return None
    try:
        return list(copy.deepcopy(bench.world.solve(task, 0)))  # type: ignore[attr-defined]
    except EnvironmentFault:  # how a world says that it has no solution of this one
        return None


async def _elsewhere(bench: Bench, method: str, **arguments: Any) -> Any:
    """Ask the world in another process, in which texts hash otherwise."""
    worker = await bench.crew.hire()
    try:
        return await worker.call(method, **arguments)
    finally:
        bench.crew.release(worker)


def _megabytes() -> float | None:
    """Resident memory of this process and all that it started."""
    try:
        import psutil
    except ImportError:
        return None
    gc.collect()
    process = psutil.Process()
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 2**20
