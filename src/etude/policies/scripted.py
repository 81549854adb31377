"""Plays given messages: an expert's solution in the place of a model, or a double in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from etude.core.errors import PolicyError
from etude.core.parts import part
from etude.protocols import Action, Sampling
from etude.trajectory import Message, Trajectory


@part
@dataclass
class scripted:
    """Assistant messages in their order, or a function of the dialogue.

    The turn is counted on the path itself, so that one policy serves many episodes at once, and a branch goes on from
    where it left the script; where an episode is alone in its trajectory, the contexts that it has left count too. Its
    actions hold no tokens.
    """

    messages: Sequence[Message] | Mapping[str, Sequence[Message]] | Callable[[list[Message]], Message]
    """What to say at each turn; or task id -> what to say at each turn; or dialogue -> message."""

    name = "scripted"
    version = 0

    async def act(
        self, trajectory: Trajectory, leaf: int | None, *, sampling: Sampling, seed: int
    ) -> tuple[int, Action]:
        """The next message. Raises PolicyError when the script is over."""
        if leaf is None:
            raise PolicyError(f"trajectory {trajectory.id}: no message to answer; the world must speak first")
        if callable(self.messages):
            return leaf, Action(self.messages(trajectory.dialogue(leaf)))
        messages = self.messages[trajectory.task] if isinstance(self.messages, Mapping) else self.messages
        left = trajectory.episodes[0].rewritten if len(trajectory.episodes) == 1 else []
        turn = sum(trajectory.nodes[n].sampled for n in {n for at in (*left, leaf) for n in trajectory.path(at)})
        if turn >= len(messages):
            raise PolicyError(
                f"trajectory {trajectory.id}: turn {turn + 1} is beyond the script's {len(messages)} messages;"
                " lengthen it, or end the episode earlier"
            )
        return leaf, Action(messages[turn])
