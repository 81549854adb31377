"""The environment's own reward of the episode."""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.core.errors import ScoreError
from etude.core.parts import part
from etude.scoring.base import place
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class environment:
    """`episode.reward`, unchanged. Failed episodes have none: they are skipped, not scored 0."""

    low: float = -math.inf
    """The world's least reward, so that one outside its range is noticed."""
    high: float = math.inf

    def __post_init__(self) -> None:
        self.range = (self.low, self.high)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where the environment gave no reward."""
        if episode.reward is None:
            raise ScoreError(f"{place(trajectory, episode)}: its environment gave no reward; use another scorer")
        return float(episode.reward)
