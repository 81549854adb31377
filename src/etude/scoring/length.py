"""A penalty for long episodes that sets in softly.

Yu et al. 2025, "DAPO", arXiv:2503.14476, eq. 13, with L sampled tokens, L_max = budget + window, L_cache = window:
0 up to L_max - L_cache, then (L_max - L_cache - L) / L_cache, and -1 beyond L_max.
Departures: tokens are those of the whole episode, not of one answer. A window of 0 gives a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.core.errors import PartError, ScoreError
from etude.core.parts import part
from etude.scoring.base import place
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class length:
    """0 within the budget, falling to -1 at `budget + window` sampled tokens.

    Raises PartError for a negative setting.
    """

    budget: int
    """Sampled tokens that are free."""
    window: int = 0
    """Further tokens over which the penalty grows to its full size."""

    range = (-1.0, 0.0)

    def __post_init__(self) -> None:
        if self.budget < 0 or self.window < 0:
            raise PartError(f"scoring/length: budget {self.budget} and window {self.window} must not be negative")

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError for an episode whose policy did not count its tokens."""
        if episode.tokens_sampled == 0 and episode.turns:
            what = f"{episode.turns} turns but no sampled tokens were counted"
            raise ScoreError(f"{place(trajectory, episode)}: {what}; length needs a policy that gives tokens")
        over = episode.tokens_sampled - self.budget
        if over <= 0:
            return 0.0
        return -1.0 if over >= self.window else -over / self.window
