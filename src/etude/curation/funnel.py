"""Keep the episodes that are valid, left the world as it should be, and made the calls that they should.

The three-stage funnel of AgentScaler, Fang et al. 2025, "Towards General Agentic Intelligence via Environment Scaling",
arXiv:2509.13311, section 3.1: validity control (the rules of a tool dialogue, and no repeated n-grams), state alignment
(the final database equals gold), and, where gold only reads, exact match of the calls. Episodes in which a call failed
and the agent recovered pass, on purpose.
Departures: state and calls are judged by the world while it is played, as `environments/scaled` does, not afterwards.
"""

import itertools
from collections import Counter

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import keep_episodes, log, problem
from etude.trajectory import Episode, Trajectory


@part
def funnel(trajectories: list[Trajectory], *, ngram: int = 6, most: int = 2) -> list[Trajectory]:
    """The same trees with only the episodes that pass all three stages, in the same order.

    ngram, most: an answer in which so many words in a row occur more than `most` times is repetitive.

    What each stage dropped is logged. Raises RecipeError where the world told no episode's `state`.
    """
    told = [e.scores for t in trajectories for e in t.episodes if not problem(t, e)]
    if told and not any("state" in scores for scores in told):
        raise RecipeError(
            "curation/funnel: no episode has the score 'state'; the world must give it with its last step, in "
            "`info['scores']`, as environments/scaled does, or take curation/success"
        )
    fates: Counter[str] = Counter()
    kept = []
    for trajectory in trajectories:
        fate_G = [fate(trajectory, episode, ngram, most) for episode in trajectory.episodes]
        fates.update(fate_G)
        chosen = keep_episodes(trajectory, [not dropped for dropped in fate_G])
        if chosen is not None:
            kept.append(chosen)
    log.info(
        "funnel: kept %d of %d episodes (%d invalid, %d with another state, %d with other calls)",
        fates[""], fates.total(), fates["validity"], fates["state"], fates["calls"],
    )  # fmt: skip
    return kept


def fate(trajectory: Trajectory, episode: Episode, ngram: int = 6, most: int = 2) -> str:
    """The first stage that drops it: `validity`, `state` or `calls`; '' where none does."""
    said = [m for m in trajectory.dialogue(episode.leaf) if m.role == "assistant"]
    if problem(trajectory, episode) or any(repetitive(f"{m.thought} {m.content}", ngram, most) for m in said):
        return "validity"
    judged = {"state": 0.0, "calls": 1.0} | episode.scores  # only where gold writes nothing are the calls judged
    return next((stage for stage in ("state", "calls") if judged[stage] != 1.0), "")


def repetitive(text: str, ngram: int, most: int) -> bool:
    """Whether some n-gram of words occurs more than `most` times.

    >>> repetitive("so it is so it is so it is", 3, 2), repetitive("so it is so it is", 3, 2)
    (True, False)
    """
    words = text.lower().split()
    grams = Counter(itertools.zip_longest(*(words[n:] for n in range(ngram))))
    return any(count > most and None not in gram for gram, count in grams.items())
