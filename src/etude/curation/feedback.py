"""The verdict as a control code: good and bad episodes are trained, each behind the words that say how good it was.

FAFT, Chen et al. 2024, "Can We Rely on LLM Agents to Draft Long-Horizon Plans?", arXiv:2408.06318:
    L = -log p(plan | query, feedback(plan))      for positive and negative plans alike
and at inference the feedback is the best one. The agent loops take it as `note`, so that it stands where it stood.
Departures: constraints are the reward, errors of tools, and whatever scorers left in the episode.
"""

import re

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import answers, ended, log, split_episodes, told
from etude.trajectory import Trajectory

RULES = ("solved", "flawless", "answered")


@part
def feedback(
    trajectories: list[Trajectory],
    *,
    constraints: list[str] = ["solved", "flawless"],  # noqa: B006 (never changed)
    at_least: float = 1.0,
) -> list[Trajectory]:
    """One-episode trajectories whose first request ends with a line such as `Feedback: solved yes, flawless no.`

    constraints: `solved` (the reward is `at_least`), `flawless` (no tool reported an error and every call could be
        read), `answered` (the agent had the last word), or the name of a score of the episode (it is `at_least`).
        None of them leaves the episodes as they are.
    at_least: see constraints.

    Episodes without a reward are dropped. Raises RecipeError for a constraint that an episode has no verdict on.
    """
    judged = [one for t in trajectories for one in split_episodes(t) if one.episodes[0].reward is not None]
    verdicts = [{name: _verdict(one, name, at_least) for name in constraints} for one in judged]
    log.info("feedback: %d of %d episodes meet every constraint", sum(all(v.values()) for v in verdicts), len(judged))
    return [told(one, wording(verdict)) if verdict else one for one, verdict in zip(judged, verdicts, strict=True)]


def wording(verdict: dict[str, bool]) -> str:
    """The verdict in words.

    >>> wording({"solved": True, "flawless": False})
    'Feedback: solved yes, flawless no.'
    """
    return "Feedback: " + ", ".join(f"{name} {'yes' if held else 'no'}" for name, held in verdict.items()) + "."


def reading(text: str) -> dict[str, bool]:
    """The verdict that a wording says.

    >>> reading("Feedback: solved yes, flawless no.")
    {'solved': True, 'flawless': False}
    """
    return {name: held == "yes" for name, held in re.findall(r"(\S+) (yes|no)[,.]", text)}


def _verdict(one: Trajectory, name: str, at_least: float) -> bool:
    episode, found = one.episodes[0], answers(one)
    if name == "solved":
        return (episode.reward or 0.0) >= at_least
    if name == "flawless":
        errors = any(m.content.startswith("error:") for _, results in found for m in results)
        return not errors and not any("malformed" in node.scores for node in one.nodes)
    if name == "answered":
        return ended(one)
    if name not in episode.scores:
        there = ", ".join([*RULES, *episode.scores])
        raise RecipeError(f"curation/feedback: {one.id} has no verdict on {name!r}; there are: {there}")
    return episode.scores[name] >= at_least
