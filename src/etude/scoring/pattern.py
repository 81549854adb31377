"""Whether the final answer is written as a pattern says, such as a box around the result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from etude.core.errors import PartError
from etude.core.parts import part
from etude.scoring.base import turns
from etude.trajectory import Episode, Trajectory


@part
@dataclass
class pattern:
    """1 if the regular expression is found in the agent's last message, else 0; `.` matches a new line too."""

    regex: str

    range = (0.0, 1.0)

    def __post_init__(self) -> None:
        try:
            self.compiled = re.compile(self.regex, re.DOTALL)
        except re.error as error:
            raise PartError(f"scoring/pattern: {self.regex!r} is no regular expression: {error}") from error

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """0 for an agent that said nothing."""
        said = turns(trajectory, episode)
        return float(bool(said) and self.compiled.search(said[-1].content) is not None)
