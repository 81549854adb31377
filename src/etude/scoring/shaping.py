"""Potential-based shaping: turns are rewarded for coming nearer, without changing which policy is best.

Ng, Harada & Russell 1999, "Policy Invariance Under Reward Transformations", ICML:  F_t = gamma * P_t - P_(t-1)
Grzes 2017, "Reward Shaping in Episodic Reinforcement Learning", AAMAS: the potential of the last state must be 0.
Departures: the potential is read after each turn, and that of the beginning is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.core.errors import ScoreError
from etude.core.parts import part
from etude.scoring.base import place, steps
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class shaping:
    """The sum of the turns' shaping rewards; each is the score `shaping` of its turn's node, for credit/turns.

    With gamma 1 the sum is -start * scale for every episode: only credit that weighs turns sees a difference.
    """

    potential: str
    """The node score to read: put there by a scorer that comes before this one, as `temporal`."""
    gamma: float = 1.0
    """Discount per turn; the same as the credit's."""
    start: float = 0.0
    """Potential before the first turn."""
    scale: float = 1.0
    """Multiplies every potential."""

    range = (-float("inf"), float("inf"))

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError for a turn without the potential."""
        nodes = [trajectory.nodes[n] for n, _ in steps(trajectory, episode)]
        absent = [t for t, node in enumerate(nodes, 1) if self.potential not in node.scores]
        if absent:
            raise ScoreError(
                f"{place(trajectory, episode)}: turn {absent[0]} has no score {self.potential!r} to shape with;"
                " name a scorer before shaping that gives each turn one"
            )
        before, total = self.start, 0.0
        for node in nodes:
            after = 0.0 if node is nodes[-1] else node.scores[self.potential]
            node.scores["shaping"] = self.scale * (self.gamma * after - before)
            total += node.scores["shaping"]
            before = after
        return total
