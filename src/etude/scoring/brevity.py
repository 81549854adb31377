"""Shorter than the others of the group: a reward for length that needs no budget.

Kimi k1.5, Kimi Team 2025, arXiv:2501.12599, section 2.3.3, as Fast-Math-R1 uses it, Yoshihara et al. 2025,
arXiv:2507.08267:
    lam = 1/2 - (L - min L) / (max L - min L);  0 if all L are equal
    lam for a right answer, min(0, lam) for a wrong one
Departures: right is what earns `at_least` in the environment; L is of the whole episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etude.core.errors import ScoreError
from etude.core.parts import part
from etude.scoring.base import place
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class brevity:
    """From -1/2 to 1/2 by an episode's sampled tokens, between the shortest and the longest of its group."""

    at_least: float = 1.0
    """Smallest reward of a right answer."""

    range = (-0.5, 0.5)

    async def compare(self, trajectory: Trajectory, episodes: Sequence[Episode]) -> list[float]:
        """One score per episode. Raises ScoreError where the environment gave no reward."""
        for episode in episodes:
            if episode.reward is None:
                raise ScoreError(f"{place(trajectory, episode)}: its environment gave no reward, so nothing says right")
        lengths = [episode.tokens_sampled for episode in episodes]
        if not lengths or min(lengths) == max(lengths):
            return [0.0] * len(lengths)
        shares = [0.5 - (length - min(lengths)) / (max(lengths) - min(lengths)) for length in lengths]
        right = [episode.reward is not None and episode.reward >= self.at_least for episode in episodes]
        return [share if good else min(0.0, share) for share, good in zip(shares, right, strict=True)]
