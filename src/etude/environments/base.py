"""What worlds share: sessions that run tools, somebody else who speaks in the world, and tasks that are drawn.

`ToolSession` runs the calls of a message, answers a bad call in words, and forks by replay. `Speaker` is somebody else
in the world, such as a user. `Tasks` draws tasks for practice.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from etude.core.errors import EnvironmentFault
from etude.environments.functions import ToolError, check_call, coerce_call, written
from etude.protocols import Action, Observation, Policy, Sampling, Step, Task
from etude.trajectory import Message, ToolCall, Trajectory

TAUGHT = "+"
"""What a split's name ends with where results are followed by what they teach; see `environments/lessons`."""


# -- others in the world ---------------------------------------------------------------------------------------------


class Speaker:
    """A policy that speaks inside a world, such as a simulated user, in a dialogue of its own.

    What it says is context to the agent, and no part of what is trained. The same seed, system message and messages
    give the same answers as far as the policy does; in a fork, what it said before is said again and not drawn anew. A
    world lists its policies in `speakers`, so that `rollout` gives a local one its decoder.
    """

    def __init__(
        self,
        policy: Policy,
        system: str,
        *,
        task: str = "",
        tools: Sequence[dict[str, Any]] = (),
        sampling: Sampling = Sampling(max_tokens=512, temperature=0.0),
        seed: int = 0,
        said: Sequence[Action] = (),
    ):
        """system: who it is, and what it wants. task: the task's id. tools: that it may call; the world runs them.

        said: its first answers, known from the session that this one is a fork of.
        """
        self.policy, self.sampling, self.seed = policy, sampling, seed
        self.known, self.said = list(said), []
        self.dialogue = Trajectory(f"{task}/speaker", task, tools=list(tools))
        self.leaf = self.dialogue.add(Message("system", system), None)

    async def answer(self, *messages: Message) -> Action:
        """What it says to these messages; what the agent said has role `user` here."""
        for message in messages:
            self.leaf = self.dialogue.add(message, self.leaf)
        turn = len(self.said)
        if turn < len(self.known):
            action = self.known[turn]
        else:
            seed = int(np.random.SeedSequence([self.seed, turn]).generate_state(1, np.uint64)[0])
            self.leaf, action = await self.policy.act(self.dialogue, self.leaf, sampling=self.sampling, seed=seed)
        given = [ids for ids in (action.prompt_ids_T, action.ids_T) if ids is not None]
        ids_T = np.concatenate(given) if given else None
        self.leaf = self.dialogue.add(action.message, self.leaf, ids_T=ids_T, version=action.version)
        self.said.append(action)
        return action


# -- sessions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment: how it began and what was done, and the world's own copy where it can make one."""

    task: Task
    seed: int
    actions: tuple[Message, ...]
    done: bool
    state: Any = None
    said: tuple[Action, ...] = ()
    """What the session's speaker said, which a replay says again."""


class ToolSession:
    """One episode in a world made of tools. A subclass gives `begin`, `call` and `finish`.

    A message's calls are run one after the other; a message without calls is the final answer, unless `reply` has
    something to say to it. Where either ends the episode, it sets `done`, and the world is judged as it stands. A fork
    is made by replay, which is exact for any world that the task, the seed and the actions determine; a subclass that
    can copy its state gives `save` and `load` instead.
    """

    def __init__(self, *, max_steps: int | None = None, max_chars: int = 4000, call_seconds: float = 30.0):
        """max_steps: messages after which the episode is judged as it stands; None for no limit.
        max_chars: length at which a tool's result is cut.
        call_seconds: time that one call may take; a sync tool is measured, an async one is also interrupted.
        """
        self.max_steps, self.max_chars, self.call_seconds = max_steps, max_chars, call_seconds
        self.tools: list[dict[str, Any]] = []
        self.task: Task | None = None
        self.seed = 0
        self.actions: list[Message] = []
        self.done = True
        self.speaker: Speaker | None = None
        """Somebody else in the world, made by `begin`, which gives it `said`."""
        self.said: tuple[Action, ...] = ()

    async def begin(self, task: Task, seed: int) -> Observation:
        """Set the world up and `self.tools`; what the agent is shown first."""
        raise NotImplementedError

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The result of a checked call. ToolError is the agent's mistake, any other exception the tool's.

        One that ends the episode sets `self.done`.
        """
        raise NotImplementedError

    async def reply(self, said: str) -> Sequence[Message] | None:
        """What is said to the agent after a message without calls; None where that was its final answer."""
        return None

    async def finish(self, answer: str) -> float:
        """The episode's reward. '' for an agent that never answered."""
        raise NotImplementedError

    def lesson(self, name: str, arguments: dict[str, Any], result: str) -> str:
        """What a result, such as a refusal, teaches of the world's rules; '' for nothing. It must change nothing.

        It says which precondition failed and which tool meets it, or which rule an argument broke; never the answer.
        """
        return ""

    def save(self) -> Any:
        """A copy of the world's state; None where it can only be replayed."""
        return None

    def load(self, state: Any) -> None:
        """Take over what `save` gave, without sharing it."""

    async def reset(self, task: Task, seed: int) -> Observation:
        self.task, self.seed, self.actions, self.done = task, seed, [], False
        return await self.begin(task, seed)

    async def step(self, action: Message | np.ndarray) -> Step:
        """Run the message's calls, or judge its content as the answer. Reward is None until done.

        Raises EnvironmentFault where a tool broke or took too long, or the session is not under way.
        """
        if self.task is None or self.done:
            raise EnvironmentFault(f"step on a session that is {'over' if self.task else 'not begun'}; reset it")
        if not isinstance(action, Message):
            raise EnvironmentFault(f"task {self.task.id}: this world takes messages, not {type(action).__name__}")
        self.actions.append(action)
        if action.tool_calls:
            results = tuple([await self._answer(call) for call in action.tool_calls])
        elif (reply := await self.reply(action.content)) is not None:
            results = tuple(reply)
        else:
            self.done = True
            return Step(Observation(), done=True, reward=await self.finish(action.content))
        if self.done:
            return Step(Observation(results), done=True, reward=await self.finish(""))
        if self.max_steps is not None and len(self.actions) >= self.max_steps:
            self.done = True
            return Step(Observation(results), done=True, reward=await self.finish(""), info={"limit": "max_steps"})
        return Step(Observation(results))

    async def _answer(self, call: ToolCall) -> Message:
        problem = "the episode is over; this call was not run" if self.done else check_call(self.tools, call)
        text = f"error: {problem}" if problem else await self._result(coerce_call(self.tools, call))
        if len(text) > self.max_chars:
            text = f"{text[: self.max_chars]}... (cut: {self.max_chars} of {len(text)} characters)"
        return Message("tool", text, tool_call_id=call.id, name=call.name)

    async def _result(self, call: ToolCall) -> str:
        """A call's result, with its lesson in a task that has them."""
        text = await self._run(call)
        taught = self.task is not None and self.task.split.endswith(TAUGHT)
        lesson = self.lesson(call.name, call.arguments, text) if taught else ""
        return f"{text}; {lesson}" if lesson else text

    async def _run(self, call: ToolCall) -> str:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            result = await asyncio.wait_for(self.call(call.name, call.arguments), self.call_seconds)
            text = result if isinstance(result, str) else written(result)
        except ToolError as error:
            return f"error: {error}"
        except Exception as error:
            if clock() - begun < self.call_seconds:
                raise EnvironmentFault(f"tool {call.name!r} failed: {type(error).__name__}: {error}") from error
            text = ""
        if clock() - begun >= self.call_seconds:
            raise EnvironmentFault(
                f"tool {call.name!r} took longer than {self.call_seconds:g} s; make it faster or raise call_seconds"
            )
        return text

    async def snapshot(self) -> Snapshot:
        if self.task is None:
            raise EnvironmentFault("snapshot of a session that is not begun; call reset first")
        said = tuple(self.speaker.said) if self.speaker else ()
        return Snapshot(self.task, self.seed, tuple(self.actions), self.done, self.save(), said)

    async def restore(self, snapshot: Snapshot) -> None:
        self.said = snapshot.said
        try:
            await self.reset(snapshot.task, snapshot.seed)
        finally:
            self.said = ()
        if snapshot.state is None:
            for action in snapshot.actions:
                await self.step(action)
        else:
            self.load(snapshot.state)
            self.actions, self.done = list(snapshot.actions), snapshot.done

    async def close(self) -> None:
        """Nothing is held open."""


def acts(commands: Sequence[str]) -> list[Message]:
    """Messages that call `act` with these commands, one each."""
    return [
        Message("assistant", "", (ToolCall("act", {"command": command}, f"call_{n}"),))
        for n, command in enumerate(commands, 1)
    ]


# -- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LazyTasks(Sequence[Task]):
    """Tasks that are made when they are looked at: `make(i)` for i in 0 .. length - 1."""

    make: Callable[[int], Task]
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        places = range(self.length)[index]
        return self.make(places) if isinstance(places, int) else [self.make(i) for i in places]

    def __iter__(self) -> Iterator[Task]:
        return map(self.make, range(self.length))


class Tasks:
    """Draws tasks of a split; what an environment with `tasks(split)` adds."""

    draws = 0

    def tasks(self, split: str) -> Sequence[Task]:
        raise NotImplementedError

    def sample(self, n: int, *, split: str = "train", seed: int | None = None) -> list[Task]:
        """Draw n tasks, all different while the split is large enough.

        The same seed draws the same tasks. Without one, each call is the next draw of a fixed stream, whose place
        `state_dict` keeps.
        """
        tasks = self.tasks(split)
        if not tasks:
            raise EnvironmentFault(f"split {split!r} of {getattr(self, 'name', 'this world')} has no tasks to sample")
        if seed is None:
            key, self.draws = f"draw {self.draws}", self.draws + 1
        else:
            key = f"seed {seed}"
        rng = random.Random(key)
        places = rng.sample(range(len(tasks)), n) if n <= len(tasks) else rng.choices(range(len(tasks)), k=n)
        return [tasks[i] for i in places]

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draws = state["draws"]


def hashed_split(text: str) -> str:
    """`train`, `dev` or `test` (80/10/10) by a hash of the text, the same in every run.

    >>> hashed_split("task 0"), hashed_split("task 1"), hashed_split("task 2")
    ('dev', 'test', 'train')
    """
    place = int(digest(text), 16) % 10
    return "train" if place < 8 else "dev" if place == 8 else "test"


def invented_names(rng: random.Random, count: int, without: Collection[str] = ()) -> list[str]:
    """Different names of two syllables and a last letter, which nobody can know anything about."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = (rng.choice("bdfgklmnprstv") + rng.choice("aeiou") for _ in range(2))
        name = "".join([*syllables, rng.choice("lnrst")]).capitalize()
        if name not in without:
            found[name] = None
    return list(found)


def digest(text: str) -> str:
    """Twelve hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
