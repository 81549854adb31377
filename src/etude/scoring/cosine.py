"""Right answers earn more when short, wrong ones lose less when long: a cosine over length.

Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs", arXiv:2502.03373, as Fast-Math-R1 uses it,
Yoshihara et al. 2025, arXiv:2507.08267:
    v = end + (start - end) / 2 * (1 + cos(pi min(1, L / longest))),   L sampled tokens,
with start and end 1.0 and 0.1 for a right answer, -1.0 and -0.1 for a wrong one.
Departures: right is what earns `at_least` in the environment; L is of the whole episode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.core.errors import PartError, ScoreError
from etude.core.parts import part
from etude.scoring.base import place
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class cosine:
    """From `short` at no token to `long` at `longest`, the same with the sign changed where the answer is wrong."""

    longest: int
    """Sampled tokens from which on length makes no difference."""
    short: float = 1.0
    """Score of the shortest right answer."""
    long: float = 0.1
    """Score of the longest right answer."""
    at_least: float = 1.0
    """Smallest reward of a right answer."""

    range = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise PartError(f"scoring/cosine: longest is {self.longest}; give the most tokens of an episode")
        self.range = (-max(self.short, self.long), max(self.short, self.long))

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where the environment gave no reward."""
        if episode.reward is None:
            raise ScoreError(f"{place(trajectory, episode)}: its environment gave no reward, so nothing says right")
        share = min(1.0, episode.tokens_sampled / self.longest)
        size = self.long + (self.short - self.long) / 2 * (1 + math.cos(math.pi * share))
        return size if episode.reward >= self.at_least else -size
