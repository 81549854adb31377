"""Drop episodes that break the rules every tool dialogue obeys, and say which rule.

The rule checks of ActionStudio's critique-and-filter step, Zhang et al. 2025, arXiv:2503.22673, and the quality gates
of the Agent Data Protocol, Song et al. 2025, arXiv:2510.24702: each call is to an offered tool with arguments of its
types, each result answers a call, no call was malformed, roles take turns, and the assistant has the last
word, which no limit cut.
Departures: no model scores the rest; `curation/success` or a scorer does that.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jsonschema

from etude.core.errors import FormatError
from etude.core.parts import part
from etude.curation.base import keep_episodes, log
from etude.trajectory import Episode, Message, StopReason, Trajectory
from etude.trajectory.formats.dialogue import link


@part
def wellformed(trajectories: list[Trajectory], *, thoughts: bool = False, errors: bool = False) -> list[Trajectory]:
    """The same trees with only the episodes that break no rule, in the same order.

    thoughts: whether each call must come with words: a thought, or content beside it.
    errors: whether a result that begins with `error:` counts as a broken rule.

    Each rejected episode is logged with its reason, and the counts by reason.
    """
    reasons: Counter[str] = Counter()
    kept = []
    for trajectory in trajectories:
        broken_G = [problem(trajectory, e, thoughts=thoughts, errors=errors) for e in trajectory.episodes]
        for g, broken in enumerate(broken_G):
            if broken:
                log.info("wellformed: rejected %s, episode %d: %s", trajectory.id, g, broken)
        reasons.update(broken.partition(":")[0] for broken in broken_G if broken)
        chosen = keep_episodes(trajectory, [not broken for broken in broken_G])
        if chosen is not None:
            kept.append(chosen)
    log.info(
        "wellformed: rejected %d episodes (%s)", reasons.total(), ", ".join(f"{n} {r}" for r, n in reasons.items())
    )
    return kept


def problem(trajectory: Trajectory, episode: Episode, *, thoughts: bool = False, errors: bool = False) -> str:
    """The first broken rule as `rule: details`, '' where there is none."""
    if episode.failure is not None:
        return f"failed: {episode.failure.boundary}, {episode.failure.error}"
    if any("malformed" in trajectory.nodes[n].scores for n in trajectory.path(episode.leaf)):
        return "malformed call: a call could not be read"
    dialogue = trajectory.dialogue(episode.leaf)
    try:
        link(dialogue, trajectory.tools)
    except FormatError as error:
        return f"structure: {error}"
    roles = [m.role for m in dialogue]
    if episode.stop is StopReason.TOKENS:
        return "ending: the token limit cut the last answer"
    if roles[-1:] != ["assistant"] or dialogue[-1].tool_calls:
        return "ending: the last message is not an answer"
    for n, (role, following) in enumerate(itertools.pairwise(roles)):
        if role == following and role in ("user", "assistant"):
            return f"roles: message {n + 1} is of role {following!r} like the one before it"
    return _broken_call(dialogue, trajectory.tools, thoughts, errors)


def _broken_call(dialogue: Sequence[Message], tools: Sequence[dict[str, Any]], thoughts: bool, errors: bool) -> str:
    schemas = {tool["name"]: tool.get("parameters") or {} for tool in tools}
    for n, message in enumerate(dialogue):
        for call in message.tool_calls:
            # an argument that the tool does not list is wrong even where its schema says nothing of it
            schema = {"additionalProperties": False, **schemas.get(call.name, {"additionalProperties": True})}
            wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(call.arguments), None)
            if wrong is not None:
                return f"arguments: message {n}, {call.name}: {wrong.message}"
        if thoughts and message.tool_calls and not (message.thought or message.content):
            return f"thought: message {n} calls a tool without a word"
        if errors and message.role == "tool" and message.content.startswith("error:"):
            return f"error result: message {n}, {message.content}"
    return ""
