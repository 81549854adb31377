"""How many of the wanted words the final answer holds, less a penalty for saying too much.

MaskSearch, Wu et al. 2025, "A Universal Pre-Training Framework to Enhance Agentic Search Capability", its reward:
    R = |words of the answer and of the gold| / |words of the gold|
    with the penalty, for an answer of n words and a gold of m:    R * min(1, m / n)
The penalty stops a policy from listing all that might be right.
Departures: the form of the penalty.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from etude.core.parts import part
from etude.scoring.base import accepted_answers, final_answer, words
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class recall:
    """Recall of the gold's words behind the last `marker`; the best over the accepted answers."""

    penalty: bool = True
    """Whether an answer longer than the gold is scaled down by how much longer it is."""
    marker: str = "Answer:"
    """What stands before the answer; where it is missing, or '', everything counts."""

    range = (0.0, 1.0)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where `meta["answer"]` is missing."""
        said = final_answer(trajectory, episode)
        answer = words(said.rpartition(self.marker)[2] if self.marker else said)
        return max(self._of(answer, words(str(gold))) for gold in accepted_answers(trajectory))

    def _of(self, answer: list[str], gold: list[str]) -> float:
        if not gold:
            return float(not answer)
        found = (Counter(answer) & Counter(gold)).total() / len(gold)
        return found * min(1.0, len(gold) / len(answer)) if self.penalty and answer else found
