"""Why the expert's action is better, said before it: the other actions and what came of them, in a thought.

Early Experience, Zhang et al. 2025, "Agent Learning via Early Experience", arXiv:2510.08558, self-reflection:
    L = -log p(c, a | s)      c: a rationale from the next states of the expert's action and of K others
Departures: the rationale is a sentence made of the observed next states, true by construction, instead of a model's.
"""

import dataclasses

from etude.core.parts import part
from etude.curation.base import answers, log, saying, split_episodes
from etude.trajectory import Episode, Message, Trajectory


@part
def reflect(trajectories: list[Trajectory], *, characters: int = 60) -> list[Trajectory]:
    """The expert's episodes, then one sample for every state in which another action was tried, as text.

    characters: of a next state that are quoted.

    The actions come from the stage `branch` (`by: policy, turns: 1`). A sample ends with the expert's action behind its
    rationale and has no reward; `meta["given"]` is how many answers came before, which `curation/given` leaves
    untrained.
    """
    episodes = [one for t in trajectories for one in split_episodes(t)]
    experts = {one.id: one for one in episodes if "origin" not in one.meta}
    found: dict[tuple[str, int], Trajectory] = {}
    for one in (one for one in episodes if "start" in one.meta):
        origin, start, tried = experts.get(one.meta["origin"]), one.meta["start"], answers(one)
        if origin is None or (origin.id, start) in found or start >= len(tried):
            continue
        m, results = answers(origin)[start]
        other, outcome = one.messages[tried[start][0]], tried[start][1]
        right = origin.messages[m]
        if not right.tool_calls or not other.tool_calls or _call(other) == _call(right):
            continue  # there are no two next states to compare
        told = _quoted(outcome, characters), _quoted(results, characters)
        thought = f"{_call(other)} gives {told[0]}; {_call(right)} gives {told[1]}."
        found[origin.id, start] = _thinking(origin, m, start, thought)
    log.info("reflect: rationales for %d states of %d episodes", len(found), len(experts))
    return [*experts.values(), *found.values()]


def _call(message: Message) -> str:
    return ", ".join(f"{c.name} {' '.join(map(str, c.arguments.values()))}" for c in message.tool_calls)


def _quoted(results: list[Message], characters: int) -> str:
    text = " ".join(" ".join(m.content for m in results).split())
    return text if len(text) <= characters else text[:characters] + "..."


def _thinking(origin: Trajectory, m: int, start: int, thought: str) -> Trajectory:
    """The episode up to message m, which begins with the thought."""
    dialogue = origin.dialogue(origin.episodes[0].leaf)
    end = next(i for i, message in enumerate(dialogue) if message is origin.messages[m])
    acting = dataclasses.replace(dialogue[end], content=f"{thought} {dialogue[end].content}".strip())
    sample = saying(origin, [*dialogue[:end], acting])
    sample.episodes = [Episode(sample.episodes[0].leaf)]
    return dataclasses.replace(sample, id=f"{origin.id}?{start}", meta=origin.meta | {"given": start})
