"""The share of turns that are written in the form asked for."""

from __future__ import annotations

from dataclasses import dataclass

from etude.core.errors import ScoreError
from etude.core.parts import part
from etude.scoring.base import place, turns
from etude.trajectory import Episode, Message, Trajectory


@part
@dataclass
class format:
    """Well-formed turns / turns: every call could be read, and every required tag is there, opened and closed once.

    A call that could not be read is one whose marker was left behind in the content.
    """

    tags: tuple[str, ...] = ()
    """Names such as `answer` for `<answer>…</answer>`. `think` is also met by a thought kept apart from the content."""
    marker: str = "<tool_call>"
    """What begins a call in the policy's own format."""

    range = (0.0, 1.0)

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError for an episode without turns."""
        said = turns(trajectory, episode)
        if not said:
            raise ScoreError(f"{place(trajectory, episode)}: the agent said nothing, so there is no form to judge")
        return sum(self._good(turn) for turn in said) / len(said)

    def _good(self, turn: Message) -> bool:
        text = f"<think>{turn.thought}</think>{turn.content}" if turn.thought else turn.content
        tagged = all(text.count(f"<{t}>") == text.count(f"</{t}>") == 1 and _in_order(text, t) for t in self.tags)
        return tagged and self.marker not in turn.content


def _in_order(text: str, tag: str) -> bool:
    return text.index(f"<{tag}>") < text.index(f"</{tag}>")
