"""Native tool calling: the model's own call notation, several calls and content in one turn.

The loop: act; if the turn has calls, run them and append one result per call; a turn without calls is the final answer.
A malformed call is answered with what is wrong and how to write it, as a tool result, and the loop goes on.
"""

from dataclasses import dataclass

from etude.agents.loops.base import noted
from etude.core.parts import part
from etude.protocols import Grammar, Observation, Run
from etude.trajectory import Message


@part
@dataclass(frozen=True)
class native:
    """The default agent."""

    well_formed: bool = False
    """Let a local model write no malformed call, by a grammar made of the tools (needs the extra `grammar`)."""
    note: str = ""
    """A line added to the first request, such as the control code of data that was trained with one."""

    async def __call__(self, run: Run, first: Observation) -> None:
        run.observe(*noted(first.messages, self.note))
        changes = {"grammar": Grammar("calls")} if self.well_formed else {}
        while not run.over:
            action = await run.act(**changes)
            if action.problem:
                run.observe(Message("tool", f"error: {action.problem}"))
                if not action.message.tool_calls:
                    continue
            step = await run.step(action.message)
            run.observe(*step.observation.messages)
