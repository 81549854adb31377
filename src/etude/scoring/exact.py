"""Exact match of the final answer.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250, section 6.1.
Departures: two numbers are compared as numbers, because the normalisation would make 3.5 of 35 and 5 of -5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from etude.core.parts import part
from etude.scoring.base import accepted_answers, final_answer, words
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class exact:
    """1 if the final answer is one of the accepted ones after normalisation, else 0."""

    range = (0.0, 1.0)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where `meta["answer"]` is missing."""
        answer = final_answer(trajectory, episode)
        return float(any(_same(answer, str(gold)) for gold in accepted_answers(trajectory)))


def _same(answer: str, gold: str) -> bool:
    a, b = _number(answer), _number(gold)
    if a is not None and b is not None:
        return a == b
    return words(answer) == words(gold)


def _number(text: str) -> float | None:
    bare = text.strip().rstrip(".").replace(",", "")
    return float(bare) if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", bare) else None
