"""Coding problems as tool environments: the input is hidden behind functions of the reference solution.

CodeGym, Du et al. 2025, "Generalizable End-to-End Tool-Use RL with Synthetic CodeGym", arXiv:2509.17325, code at
https://github.com/StigLidu/CodeGym (not used; CC BY-NC 4.0). `tools.problem` says how a problem becomes tools, a
question and a solution that uses the tools alone. The reward is 1 where the words that `done` was given are the answer,
else 0, within twice the calls that the solution makes and two more.

The problems of the folder `problems` are ours: look-ups, walks, arrays, search, strings, graphs, dynamic programming.
Those marked HELD_OUT, whose tools no other has, make the split `domains`. `folder` takes others, such as a model wrote;
their code runs in a sandbox alone.

A problem is used only where, on draws of each size, the reference ends within time and memory, each solution reaches
its answer from what the tools tell and needs at least two calls, and no tool told the answer itself; draws that a tool
would give away are drawn anew. `refused` says which were not used and why.

Departures: templates and the syntax tree instead of a model's writing make the tools; nothing shows the whole input; an
instance belongs to train, dev or test by a hash of its inputs.
"""

import asyncio
import functools
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.core.errors import EnvironmentFault, PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.environments.functions import ToolError
from etude.protocols import Observation, Task
from etude.tools import problem
from etude.tools.problem import DONE, Problem
from etude.tools.sandbox import Sandbox
from etude.trajectory import Message, ToolCall

log = logging.getLogger("etude")
OWN = Path(__file__).parent / "problems"
TESTS = 4  # draws of each size on which a problem from elsewhere is tried
LIMITS: dict[str, Any] = {"seconds": 20, "memory_mb": 256, "output_kb": 4096}
INSTRUCTION = "Find the answer with the tools, then give it to done."
FINISH = {
    "name": DONE,
    "description": "give the answer",
    "parameters": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]},
}


@part
@dataclass(eq=False)
class codegym(Tasks):
    """Small algorithmic problems whose input can be seen only through tools.

    >>> codegym(kinds=["lookup"]).tasks("domains")[0].domain
    'parents'
    """

    kinds: list[str] = field(default_factory=list[str])
    """Of problems, such as `lookup`, `walk`, `array`, `search`, `string`, `graph`, `dp`; empty for all."""
    sizes: list[int] = field(default_factory=lambda: [2, 3, 4])
    """Of inputs, drawn evenly."""
    size: int = 2000
    """Tasks in the split `train`; `dev`, `test` and `domains` have a tenth."""
    folder: str = ""
    """Problems of your own, one Python file each, in the place of ours."""
    name = "codegym"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        files = sorted(Path(self.folder or OWN).glob("*.py"))
        self.at_once = 8 if self.folder else 64  # sandboxes
        self.sources = {file.stem: file.read_text(encoding="utf-8") for file in files}
        self.drawn = dict[tuple[str, str, int, int], dict[str, Any]]()
        self.about, self.refused = dict[str, Any](), dict[str, str]()
        for name in self.sources:
            try:
                self.about[name] = self._verified(name)
            except EnvironmentFault as error:
                self.refused[name] = str(error)
                log.warning("codegym: %s", error)
        kinds = {about["kind"] for about in self.about.values()}
        for kind in self.kinds:
            if kind not in kinds:
                raise PartError(f"environments/codegym: no kind {kind!r}; {suggest(kind, kinds)}")
        if not self.about:
            why = next(iter(self.refused.values()), "there is no *.py")
            raise PartError(f"environments/codegym: folder {self.folder!r} has no problem that can be used ({why})")

    def _verified(self, name: str) -> dict[str, Any]:
        """What there is to know of a problem. Raises EnvironmentFault where it is not to be used."""
        if not self.folder:  # tests try all of ours
            return problem.answered(_own(self.sources[name], name), "about", {})["value"]
        tries = [("draw", {"seed": f"test {n}", "size": size}) for size in self.sizes for n in range(TESTS)]
        return self._ask(name, [("about", {}), *tries])[0]

    def _ask(self, name: str, requests: list[problem.Call]) -> list[Any]:
        """Run methods of a problem from elsewhere, in a sandbox of its own."""

        async def ask() -> list[Any]:
            box = Sandbox(**LIMITS)
            try:
                return await ask_in(box, name, self.sources[name], requests)
            finally:
                box.close()

        with ThreadPoolExecutor(1) as thread:  # the caller may be within a running event loop
            answers = thread.submit(asyncio.run, ask()).result()
        if wrong := [answer for answer in answers if "value" not in answer]:
            raise EnvironmentFault(f"problem {name!r}: {wrong[0]['unsuitable']}")
        return [answer["value"] for answer in answers]

    def tasks(self, split: str) -> LazyTasks:
        """Tasks of `train`, `dev`, `test`, or `domains` (problems that are in no other split); each problem in turn.

        Raises PartError for another split.
        """
        sizes = {"train": self.size, "dev": self.size // 10, "test": self.size // 10, "domains": self.size // 10}
        if split not in sizes:
            raise PartError(f"environments/codegym has no split {split!r}; {suggest(split, sizes)}")
        names = [
            name
            for name, about in self.about.items()
            if about["held_out"] == (split == "domains") and (not self.kinds or about["kind"] in self.kinds)
        ]
        count = sizes[split] if names else 0
        return LazyTasks(lambda i: self._make(split, names[i % len(names)], i // len(names)), count)

    def _make(self, split: str, name: str, number: int) -> Task:
        size, n = self.sizes[number % len(self.sizes)], number // len(self.sizes)
        if (split, name, size, n) not in self.drawn:
            wanted = {"seed": f"{split} {n}", "size": size, "split": "" if split == "domains" else split}
            if self.folder:
                self.drawn[split, name, size, n] = self._ask(name, [("draw", wanted)])[0]
            else:
                self.drawn[split, name, size, n] = _own(self.sources[name], name).draw(**wanted)
        data = {"problem": name, **self.drawn[split, name, size, n]}
        identity = f"codegym/{name}/{split}/{size}.{n}"
        skills = (self.about[name]["kind"],)
        return Task(identity, self, split, data, name, float(len(data["calls"])), skills, "tools/problem.py")

    def open(self) -> "CodeSession":
        return CodeSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The calls of the reference solution, rewritten to use the tools, and `done`."""
        calls = [*task.data["calls"], (DONE, {"answer": task.data["answer"]})]
        return [
            Message("assistant", "", (ToolCall(name, dict(arguments), f"call_{n}"),))
            for n, (name, arguments) in enumerate(calls, 1)
        ]


class CodeSession(ToolSession):
    """One instance. Its state is the calls that were made: each call is run after those before it, from the inputs."""

    box: Sandbox | None = None

    def __init__(self, world: codegym):
        super().__init__()
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        self.data, self.calls, self.answer = task.data, list[problem.Call](), ""
        self.tools = [*self.world.about[task.data["problem"]]["tools"], FINISH]
        self.max_steps = 2 * len(task.data["calls"]) + 2
        return Observation((Message("system", INSTRUCTION), Message("user", task.data["question"])))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if name == DONE:
            self.done, self.answer = True, arguments["answer"]
            return "The answer was taken."
        made = [*self.calls, (name, arguments)]
        told = await self._told(made)
        if "mistake" in told:
            raise ToolError(told["mistake"])
        self.calls = made
        return told["value"]

    async def _told(self, calls: list[problem.Call]) -> dict[str, Any]:
        name, request = self.data["problem"], ("run", {"inputs": self.data["inputs"], "calls": calls})
        if not self.world.folder:
            return problem.answered(_own(self.world.sources[name], name), *request)
        self.box = self.box or Sandbox(**LIMITS)
        return (await ask_in(self.box, name, self.world.sources[name], [request]))[0]

    async def finish(self, answer: str) -> float:
        """Only `done` answers."""
        return float(bool(self.answer) and problem.words(self.answer) == problem.words(self.data["answer"]))

    def current_reward(self) -> float:
        """Nothing: there is no answer yet."""
        return 0.0

    def save(self) -> Any:
        return list(self.calls), self.answer

    def load(self, state: Any) -> None:
        calls, self.answer = state
        self.calls = list(calls)

    async def close(self) -> None:
        if self.box is not None:
            self.box.close()
            self.box = None


async def ask_in(box: Sandbox, name: str, source: str, requests: list[problem.Call]) -> list[dict[str, Any]]:
    """Run methods of a problem in a sandbox; where its code overran or ended the process, that is `unsuitable`, and a
    call is answered with what happened as its `mistake`."""
    await box.put({"problem.py": Path(problem.__file__).read_text(encoding="utf-8")})
    asked = json.dumps({"source": source, "name": name, "requests": requests})
    ran = await box.execute([box.settings["python"], "problem.py"], asked)
    try:
        return json.loads(ran.output.splitlines()[-1])
    except (ValueError, IndexError):
        why = str(ran)[-500:]
        return [{"unsuitable": why, "mistake": why}] * len(requests)


@functools.cache
def _own(source: str, name: str) -> Problem:
    return Problem(source, name)
