"""What a reward model says of the last thing that an agent did: how likely it is to be accepted.

Lu et al. 2024, "Proactive Agent: Shifting LLM Agents from Reactive Responses to Active Assistance", arXiv:2410.12361,
section 4.3: a language model, tuned on people's labels, reads the events and what the agent proposed, or that it
proposed nothing, and says `accepted` or `rejected`:
    score = P(accepted) / (P(accepted) + P(rejected))
Departures: it gives no reasons first; the probability instead of the word, so that a threshold can be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etude.core.errors import PartError, ScoreError
from etude.core.parts import part
from etude.protocols import Policy
from etude.rendering.verdicts import EVENTS, NO, QUESTION, YES, question
from etude.scoring.base import place, steps
from etude.trajectory import Episode, Message, Trajectory


@part
@dataclass
class verdict:
    """The judge's probability of its word for yes, of its two words; what came after the last turn is not read.

    Raises PartError for a judge whose probabilities cannot be read.
    """

    policy: Policy
    """The reward model, a local one: what the stage `set_aside` kept is `{local: {model: "aside:NAME"}}`."""
    ask: str = QUESTION
    """The question, as the judge was taught; what it is asked about is made by `rendering.verdicts`."""
    accepted: str = YES
    rejected: str = NO
    events: int = EVENTS
    """Most messages of others that it reads, up to the deed."""

    range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not callable(getattr(self.policy, "logprobs", None)):
            name = self.policy.name
            raise PartError(
                f"scoring/verdict: policy {name!r} gives no probabilities; take a local one, or scoring/judge"
            )

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError where the agent did nothing that could be read: what nobody judged is not 0."""
        taken = steps(trajectory, episode)
        if not taken or "malformed" in trajectory.nodes[taken[-1][0]].scores:
            raise ScoreError(f"{place(trajectory, episode)}: its last turn holds nothing to judge; drop such episodes")
        asked = question(trajectory.dialogue(taken[-1][0]), self.ask, self.events)
        judge, dialogue = self.policy, Trajectory("judgement", "judgement")
        leaf = dialogue.add(Message("user", asked), None)
        answers = [dialogue.add(Message("assistant", word), leaf) for word in (self.accepted, self.rejected)]
        ids, starts = [], []
        for answer in answers:
            answer = judge.renderer.fill(dialogue, answer)  # type: ignore[attr-defined]
            ids.append(dialogue.ids_P(answer))
            starts.append(len(ids[-1]) - int(dialogue.nodes[answer].sampled_T.sum()))  # type: ignore[union-attr]
        yes, no = (float(logprob_T.sum()) for logprob_T in await judge.logprobs(ids, starts))  # type: ignore[attr-defined]
        return float(1 / (1 + np.exp(np.clip(no - yes, -500, 500))))
