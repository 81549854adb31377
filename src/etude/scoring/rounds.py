"""In which of its rounds the agent was right: at once, at all, and with how many to spare.

LIMI, Xiao et al. 2025, arXiv:2509.17567, over R rounds of feedback, each round an answer (agents/loops/retry):
    FTFC = [right in round 1]     SR@R = [right within R rounds]     RC@R = R - round of the first right answer, else 0
Departures: a round is right or wrong, where the paper counts the requirements that it meets.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.core.errors import PartError
from etude.core.parts import part
from etude.scoring.base import accepted_answers, turns, words
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class rounds:
    """SR@R; `ftfc` and `rc` are scores of the episode beside it."""

    most: int = 3
    """R; later answers do not count."""
    marker: str = "Answer:"
    """What stands before the answer; where it is missing, or '', everything counts."""

    range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise PartError(f"scoring/rounds: most={self.most}; there is at least one round")

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where `meta["answer"]` is missing."""
        golds = [words(str(gold)) for gold in accepted_answers(trajectory)]
        said = [message.content for message in turns(trajectory, episode) if not message.tool_calls]
        right = [words(text.rpartition(self.marker)[2] if self.marker else text) in golds for text in said]
        solved = next((n for n, held in enumerate(right[: self.most], 1) if held), None)
        episode.scores["ftfc"] = float(solved == 1)
        episode.scores["rc"] = float(self.most - solved) if solved else 0.0
        return float(solved is not None)
