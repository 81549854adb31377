"""Attempts in one context: after each answer but the last the agent is asked to try again, and improves on itself.

RISE, Qu et al. 2024, "Recursive Introspection", arXiv:2407.18219: inference without an oracle, the last turn's answer.
Agentic Transformer, Liu & Abbeel 2023, arXiv:2305.16554: trials in one context, each continuing from the last.
Departures: the world is not begun anew between attempts, so it must be one that looking does not change.
"""

from dataclasses import dataclass

from etude.agents.loops.base import noted
from etude.core.parts import part
from etude.protocols import Observation, Run
from etude.trajectory import Message


@part
@dataclass(frozen=True)
class retry:
    """The native loop, in which only the last attempt's answer reaches the world."""

    attempts: int = 2
    """How many; a limit on turns makes the answer before it the last."""
    ask: str = "Try again."
    """What the agent is told after an attempt."""
    note: str = ""
    """A line added to the first request, such as the return to aim for."""

    async def __call__(self, run: Run, first: Observation) -> None:
        run.observe(*noted(first.messages, self.note))
        left = self.attempts
        while not run.over:
            action = await run.act()
            if action.problem:
                run.observe(Message("tool", f"error: {action.problem}"))
                if not action.message.tool_calls:
                    continue
            if not action.message.tool_calls and left > 1 and not run.over:
                left -= 1
                run.observe(Message("user", self.ask))
                continue
            step = await run.step(action.message)
            run.observe(*step.observation.messages)
