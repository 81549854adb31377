"""Modules around a policy, any subset of them: reflection, planning, skills, and the action itself.

The agents of Orak, Park et al. 2025, "Orak: A Foundational Benchmark for Training and Evaluating LLM Agents on Diverse
Video Games", arXiv:2506.03610. At each state the policy is asked once for each module, in a context of its own that
holds what this module reads of the episode's memory, and what it answers goes into that memory:

    reflection   state before, action, state now     -> how the last action went      (from the second state on)
    planning     state, plan, action, reflection     -> what to aim for
    skills       what the last action did, where the reflection says that it was good; kept with the action, and of all
                 that are kept the most like the plan and the state (BM25) are shown to the action
    action       state, plan, reflection, skills     -> a call, which is the world's

Without modules it is the zero-shot agent; `reflection`, `planning` and both are Orak's other agents. Every module call
is a path of the trajectory, (prompt, module output), and trained like any answer.

`Memory` holds the prompts and takes the answers. With `server` it is in a process that speaks MCP, such as
`python -m etude.apps.serve.modules reflection planning`, as Orak's agent servers are; the policy stays here.

Departures: the prompts are a line; skills last for an episode, and what Orak keeps as long-term memory is not apart
from them.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from etude.core.errors import EnvironmentFault, PartError, missing_extra, suggest
from etude.core.parts import part
from etude.protocols import Action, Observation, Run
from etude.tools import ranking
from etude.trajectory import Message

MODULES = ("reflection", "planning", "skills")
ACTION = "action"
ASKS = {
    "reflection": "Was the action good or bad?",
    "planning": "What is the aim?",
    "skills": "What did the action do?",
}
SHOWN = 3  # skills
GOOD = "good"


class Mind(Protocol):
    """What an agent's modules read and write; here, or behind MCP."""

    async def observe(self, state: str) -> None:
        """Take a new state in."""
        ...

    async def prompt(self, module: str) -> str:
        """What to ask the policy for this module now; '' where it has nothing to ask."""
        ...

    async def respond(self, module: str, answer: str) -> None:
        """Take in what the policy answered."""
        ...


@dataclass
class Memory:
    """One episode's memory, and the prompts that are made from it."""

    state: str = ""
    before: str = ""
    said: dict[str, str] = field(default_factory=dict[str, str])
    """Module -> its last answer."""
    skills: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Descriptions and actions, in the order in which they were learnt."""

    async def observe(self, state: str) -> None:
        self.before, self.state = self.state, state

    async def prompt(self, module: str) -> str:
        """Raises PartError for a module that there is not."""
        if module not in (*MODULES, ACTION):
            raise PartError(f"agents/loops/modular: no module {module!r}; {suggest(module, MODULES)}")
        action, went = self.said.get(ACTION, ""), self.said.get("reflection", "")
        if module in ("reflection", "skills") and not action:
            return ""
        if module == "skills" and not re.search(rf"\b{GOOD}\b", went.lower()):
            return ""
        lines = {"before": self.before, "action": action} if module in ("reflection", "skills") else {}
        lines["now" if lines else ""] = self.state
        if module in ("planning", ACTION):
            lines |= {"plan": self.said.get("planning", ""), "reflection": went}
            lines |= {"last action": action} if module == "planning" else {"skills": "; ".join(self.retrieved())}
        text = [f"{name}: {line}".removeprefix(": ") for name, line in lines.items() if line]
        return "\n".join([*text, *([ASKS[module]] if module in ASKS else [])])

    async def respond(self, module: str, answer: str) -> None:
        self.said[module] = answer
        if module == "skills" and answer:
            self.skills.append((answer, self.said[ACTION]))

    def retrieved(self) -> list[str]:
        """The skills most like the plan and the state."""
        texts = [_words(description) for description, _ in self.skills]
        if not texts:
            return []
        score_N = ranking.bm25(_words(f"{self.said.get('planning', '')} {self.state}"), texts)
        order = sorted(range(len(texts)), key=lambda n: -score_N[n])[:SHOWN]
        return [f"{self.skills[n][0]}: {self.skills[n][1]}" for n in order if score_N[n] > 0]


@dataclass
class Served:
    """A mind behind MCP: the client's side."""

    client: Any

    async def observe(self, state: str) -> None:
        await self._ask("observe", state=state)

    async def prompt(self, module: str) -> str:
        return await self._ask("prompt", module=module)

    async def respond(self, module: str, answer: str) -> None:
        await self._ask("respond", module=module, answer=answer)

    async def _ask(self, tool: str, **arguments: str) -> str:
        result = await self.client.call_tool(tool, arguments)
        text = "\n".join(block.text for block in result.content)
        if result.is_error:
            raise EnvironmentFault(f"module server, {tool} {arguments}: {text}")
        return text


@part
@dataclass(frozen=True)
class modular:
    """One call of the policy for each module, then the action."""

    modules: Sequence[str] = ("reflection", "planning")
    """Of `reflection`, `planning` and `skills`, in the order in which they are asked; none is the zero-shot agent."""
    task: bool = False
    """Whether every prompt begins with the world's first request, for worlds whose states do not tell it again."""
    server: str = ""
    """A command that starts an MCP server with the episode's memory; '' for a memory in this process."""

    def __post_init__(self) -> None:
        for module in self.modules:
            if module not in MODULES:
                raise PartError(f"agents/loops/modular: no module {module!r}; {suggest(module, MODULES)}")

    async def __call__(self, run: Run, first: Observation) -> None:
        kept = [message for message in first.messages if self.task or message.role == "system"]
        state = _text([message for message in first.messages if message.role != "system"])
        async with self._mind() as mind:
            while not run.over:
                await mind.observe(state)
                for module in self.modules:
                    if prompt := await mind.prompt(module):
                        answer = await self._ask(run, kept, prompt)
                        await mind.respond(module, _said(answer.message))
                        if run.over:
                            return
                answer = await self._ask(run, kept, await mind.prompt(ACTION))
                await mind.respond(ACTION, _said(answer.message))
                if answer.problem and not answer.message.tool_calls:
                    state = f"{state.partition(PROBLEM)[0]}{PROBLEM}{answer.problem}"
                    continue
                state = _text((await run.step(answer.message)).observation.messages)

    async def _ask(self, run: Run, kept: Sequence[Message], prompt: str) -> Action:
        run.anew()
        run.observe(*kept, Message("user", prompt))
        return await run.act()

    @contextlib.asynccontextmanager
    async def _mind(self) -> AsyncIterator[Mind]:
        if not self.server:
            yield Memory()
            return
        try:
            from mcp import Client, StdioServerParameters, stdio_client
        except ImportError as error:
            raise missing_extra("mcp", "mcp") from error
        command, *rest = shlex.split(self.server)
        async with Client(stdio_client(StdioServerParameters(command=command, args=rest)), mode="legacy") as client:
            yield Served(client)

    def script(self, solution: Sequence[Message]) -> list[Message]:
        """All that an expert says here: its `thought` has a line `module: answer` for each module; else it is `none`.

        A message without calls ends the episode, and comes without its modules' answers only where there are none.
        """
        script = list[Message]()
        said: dict[str, str] = {}
        for step, message in enumerate(solution):
            thoughts = dict(line.split(": ", 1) for line in message.thought.splitlines() if ": " in line)
            for module in self.modules:
                good = re.search(rf"\b{GOOD}\b", said.get("reflection", "").lower())
                if (module == "reflection" and not step) or (module == "skills" and not (step and good)):
                    continue
                said[module] = thoughts.get(module, "none")
                script.append(Message("assistant", said[module]))
            script.append(Message("assistant", message.content, message.tool_calls))
        return script


PROBLEM = "\nerror: "


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages)


def _said(message: Message) -> str:
    """An answer in words: of calls, their arguments."""
    called = [str(value) for call in message.tool_calls for value in call.arguments.values()]
    return " ".join(filter(None, [message.content, *called]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
