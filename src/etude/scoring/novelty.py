"""A bonus for every call that was not made before in the episode: a count-based reward for exploring.

The +1 for an untried arm of Schmied et al. 2025, "LLMs are Greedy Agents", arXiv:2504.16078, section 4.4.
Departures: any call of any tool, its arguments included, is an arm; one that was answered with an error is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.core.parts import part
from etude.scoring.base import steps
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class novelty:
    """`bonus` times the different calls that worked; each turn's share is its node's score, for credit/turns."""

    bonus: float = 1.0

    range = (-math.inf, math.inf)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """0 for an episode without calls."""
        tried: set[str] = set()
        total = 0.0
        for n, after in steps(trajectory, episode):
            calls = trajectory.messages[trajectory.nodes[n].message].tool_calls
            refused = {m.tool_call_id for m in after if m.content.startswith("error:")}
            made = {f"{c.name} {sorted(c.arguments.items())}" for c in calls if c.id not in refused}
            trajectory.nodes[n].scores["novelty"] = self.bonus * len(made - tried)
            total += trajectory.nodes[n].scores["novelty"]
            tried |= made
        return total
