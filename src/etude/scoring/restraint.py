"""Whether the agent called tools where it should, and only there.

Agent-H of Agent-FLAN, Chen et al. 2024, arXiv:2403.12881:  HScore = ((1 - H_ReAct) + (1 - H_General)) / 2
H_ReAct is the rate of calls in another format, or to what is no tool, where a tool is needed; H_General the rate of
calls where none is. The score is 1 for an episode without such a hallucination; `hscore` takes the two means.
Departures: none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from etude.core.parts import part
from etude.scoring.base import steps
from etude.trajectory import Episode, Trajectory

FORMAT = re.compile(r"<tool_call>|^\s*(Action|Thought|Observation):", re.MULTILINE)
"""What looks like a call, or like an agent's format, and was not read as one."""


@part
@dataclass
class restraint:
    """1 if nothing was hallucinated, else 0; `meta["cell"]` (curation/negatives) says whether a tool was needed."""

    range = (0.0, 1.0)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        offered = {tool["name"] for tool in trajectory.tools}
        needed = needs_tool(trajectory)
        for n, _ in steps(trajectory, episode):
            message = trajectory.messages[trajectory.nodes[n].message]
            wrong = {call.name for call in message.tool_calls} - offered
            if wrong or (message.tool_calls and not needed):
                return 0.0
            if "malformed" in trajectory.nodes[n].scores or FORMAT.search(message.content):
                return 0.0
        return 1.0


def needs_tool(trajectory: Trajectory) -> bool:
    """Whether a call was right: a tool is needed, and given."""
    return trajectory.meta.get("cell", "tools need") == "tools need"


def hscore(trajectories: Sequence[Trajectory]) -> float:
    """HScore of scored episodes, 0 to 1; NaN without episodes of both kinds."""
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for trajectory in trajectories:
        kinds[needs_tool(trajectory)] += [e.scores["restraint"] for e in trajectory.episodes if "restraint" in e.scores]
    if not kinds[True] or not kinds[False]:
        return float("nan")
    return sum(sum(found) / len(found) for found in kinds.values()) / 2
