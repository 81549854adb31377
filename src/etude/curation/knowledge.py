"""What the tools said, as questions and answers: what is known of a thing, how to begin, what follows from the facts.

First-order action synthesis, AgentFounder, Su et al. 2025, "Scaling Agents via Continual Pre-training",
arXiv:2509.13310: documents become a memory, entity -> statements; from it questions are made, with their planning
(question -> first action) and their reasoning (question and facts -> answer), without a call to any tool.
Departures: an entity is a capitalised word that some sentence holds behind its first one; the questions are the
episodes' own, and one about each entity, instead of a model's; statements carry no dates.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from etude.core.parts import part
from etude.curation.base import answers, log, saying, split_episodes, wording
from etude.trajectory import Episode, Message, Trajectory

NAME = re.compile(r"\b[A-Z][a-z]+\b")


@part
def knowledge(trajectories: list[Trajectory], *, at_least: float = 1.0) -> list[Trajectory]:
    """The same trajectories, then short dialogues, as text, whose `meta["synthetic"]` says of which kind they are.

    at_least: smallest reward of an episode whose planning and reasoning are told.

    `memory`: what is known of an entity, one for each; `planning`: the first action that a request led to; `reasoning`:
    the last answer, behind the request and what the tools had said. Nothing is played.
    """
    alone = [one for t in trajectories if "synthetic" not in t.meta for one in split_episodes(t)]
    known = memory([m.content for one in alone for _, results in answers(one) for m in results])
    made = [_dialogue(alone[0], f"memory/{e}", f"What is known of {e}?", " ".join(known[e])) for e in known]
    for one in (one for one in alone if (one.episodes[0].reward or 0.0) >= at_least and answers(one)):
        found = answers(one)
        asked = next(m.content for m in one.messages if m.role == "user")
        first, last = one.messages[found[0][0]], one.messages[found[-1][0]]
        begin = " ".join(filter(None, [first.thought or first.content if first.tool_calls else "", wording(first)]))
        made.append(_dialogue(one, f"planning/{one.id}", f"{asked}\nHow do you begin?", begin))
        facts = " ".join(m.content for _, results in found for m in results)
        if facts and not last.tool_calls:
            made.append(_dialogue(one, f"reasoning/{one.id}", f"{facts}\n{asked}", last.content))
    log.info("knowledge: %d dialogues, of %d entities and %d episodes", len(made), len(known), len(alone))
    return [*trajectories, *made]


def memory(documents: Sequence[str]) -> dict[str, list[str]]:
    """Entity -> the statements that name it, both sorted: in whatever order the documents come, the same.

    >>> memory(["The flag of Disun is red. Ana lives in Disun.", "The club of Ana is old."])["Ana"]
    ['Ana lives in Disun.', 'The club of Ana is old.']
    """
    statements = {s.strip() for text in documents for s in re.split(r"(?<=[.!?])\s+", text) if s.strip()}
    entities = {name for s in statements for name in NAME.findall(s.partition(" ")[2])}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for statement in sorted(statements):
        for name in entities & set(NAME.findall(statement)):
            found[name].append(statement)
    return {name: found[name] for name in sorted(found)}


def _dialogue(like: Trajectory, id: str, question: str, answer: str) -> Trajectory:
    made = saying(like, [Message("user", question), Message("assistant", answer)])
    made.id, made.tools, made.episodes = id, [], [Episode(made.episodes[0].leaf)]
    made.meta = like.meta | {"synthetic": id.partition("/")[0]}
    return made
