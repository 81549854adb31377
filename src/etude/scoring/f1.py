"""Word overlap of the final answer.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250, section 6.1:
F1 = 2 P R / (P + R) over the words of answer and gold as multisets, the best over the accepted answers.
Departures: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.core.parts import part
from etude.scoring.base import accepted_answers, final_answer, words
from etude.tools.answers import overlap
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class f1:
    """F1 of the words that answer and gold share, after normalisation."""

    range = (0.0, 1.0)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where `meta["answer"]` is missing."""
        answer = words(final_answer(trajectory, episode))
        return max(overlap(answer, words(str(gold))) for gold in accepted_answers(trajectory))
