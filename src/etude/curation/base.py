"""What parts that choose among episodes share."""

import dataclasses
import itertools
import json
import logging
from collections.abc import Collection, Sequence
from typing import Any

import jsonschema
import numpy as np

from etude.core.errors import CreditError, FormatError
from etude.trajectory import Episode, Message, Node, StopReason, Trajectory
from etude.trajectory.formats.dialogue import link

log = logging.getLogger("etude.curation")


def keep_episodes(trajectory: Trajectory, keep_G: Sequence[bool] | np.ndarray) -> Trajectory | None:
    """A copy with only these episodes, and only the nodes and messages that they use; None if there are none.

    keep_G: one truth value per episode. The copy shares messages and per-token arrays with the original.

    Raises CreditError where a kept and a dropped episode share a weighted node: its weight is the sum of both.
    """
    if all(keep_G):
        return trajectory if trajectory.episodes else None
    kept = [e for e, keep in zip(trajectory.episodes, keep_G, strict=True) if keep]
    if not kept:
        return None
    used = {n for e in kept for n in trajectory.nodes_of(e)}
    dropped = {
        n for e, keep in zip(trajectory.episodes, keep_G, strict=True) if not keep for n in trajectory.nodes_of(e)
    }
    for n in sorted(used & dropped):
        if trajectory.nodes[n].weight_T is not None:
            raise CreditError(
                f"trajectory {trajectory.id} node {n} carries the weight of an episode that curation drops; "
                "curate first, weigh afterwards"
            )
    node_of = {old: new for new, old in enumerate(sorted(used))}
    message_of = {old: new for new, old in enumerate(sorted({trajectory.nodes[n].message for n in used}))}
    nodes = [
        dataclasses.replace(
            node, parent=None if node.parent is None else node_of[node.parent], message=message_of[node.message]
        )
        for node in (trajectory.nodes[n] for n in node_of)
    ]
    return dataclasses.replace(
        trajectory,
        messages=[trajectory.messages[m] for m in message_of],
        nodes=nodes,
        episodes=[
            dataclasses.replace(e, leaf=node_of[e.leaf], rewritten=[node_of[n] for n in e.rewritten]) for e in kept
        ],
    )


def split_episodes(trajectory: Trajectory) -> list[Trajectory]:
    """One trajectory per episode; where there are several, their ids end in `/0`, `/1`, …"""
    if len(trajectory.episodes) == 1:
        return [trajectory]
    alone = [
        keep_episodes(trajectory, np.arange(len(trajectory.episodes)) == g) for g in range(len(trajectory.episodes))
    ]
    return [dataclasses.replace(t, id=f"{trajectory.id}/{g}") for g, t in enumerate(alone) if t is not None]


def untokenised(trajectory: Trajectory) -> Trajectory:
    """The same dialogues as text alone: whoever edits the prompt or an answer takes away the tokens that said it."""
    bare = [Node(node.parent, node.message, reward=node.reward, scores=node.scores) for node in trajectory.nodes]
    return dataclasses.replace(trajectory, nodes=bare)


def answers(trajectory: Trajectory) -> list[tuple[int, list[Message]]]:
    """Each answer of a one-episode trajectory: its index among the messages, and what came until the next answer."""
    found: list[tuple[int, list[Message]]] = []
    for n in trajectory.path(trajectory.episodes[0].leaf):
        message = trajectory.nodes[n].message
        if trajectory.messages[message].role == "assistant":
            found.append((message, []))
        elif found:
            found[-1][1].append(trajectory.messages[message])
    return found


def train_only(trajectory: Trajectory, chosen: Collection[int]) -> Trajectory | None:
    """A copy in which only these messages, by index, are trained; None where nothing of them could be.

    All others become context: nothing of them is marked as sampled, so no weight reaches them.
    """
    nodes = [node if node.message in chosen else as_context(node) for node in trajectory.nodes]
    if not any(node.sampled_T is not None and node.sampled_T.any() for node in nodes):
        return None
    return dataclasses.replace(trajectory, nodes=nodes)


def told(trajectory: Trajectory, line: str) -> Trajectory:
    """The dialogue as text, as it would be if its first request had ended with this line."""
    messages = list(trajectory.messages)
    at = next(i for i, message in enumerate(messages) if message.role == "user")
    messages[at] = dataclasses.replace(messages[at], content=f"{messages[at].content}\n{line}")
    return dataclasses.replace(untokenised(trajectory), messages=messages)


def in_turn(attempts: Sequence[Trajectory], ask: str) -> Trajectory:
    """One dialogue, as text, of several attempts at one task: after each but the last a user's message says `ask`.

    attempts: one-episode trajectories with the same first messages, each ending with an answer.
    The episode, the id and the meta are those of the last.
    """
    dialogues = [one.dialogue(one.episodes[0].leaf) for one in attempts]
    begin = next(i for i, message in enumerate(dialogues[0]) if message.role == "assistant")
    said = dialogues[0][:begin]
    for number, dialogue in enumerate(dialogues):
        said += [*([Message("user", ask)] if number else ()), *dialogue[begin:]]
    return saying(attempts[-1], said)


def saying(trajectory: Trajectory, messages: Sequence[Message]) -> Trajectory:
    """A one-episode trajectory like this one, as text, that says these messages instead."""
    other = dataclasses.replace(trajectory, messages=[], nodes=[], episodes=[])
    leaf = 0
    for n, message in enumerate(messages):
        leaf = other.add(message, leaf if n else None)
    episode = trajectory.episodes[0]
    other.episodes = [dataclasses.replace(episode, leaf=leaf, rewritten=[], scores=dict(episode.scores))]
    return other


def ended(trajectory: Trajectory) -> bool:
    """Whether a one-episode trajectory ends with an answer that no limit cut."""
    episode, found = trajectory.episodes[0], answers(trajectory)
    whole = episode.failure is None and episode.stop not in (StopReason.TOKENS, StopReason.TIME)
    return whole and bool(found) and not found[-1][1] and not trajectory.messages[found[-1][0]].tool_calls


def as_context(node: Node) -> Node:
    """The same tokens, of which none is trained."""
    sampled_T = None if node.sampled_T is None else np.zeros_like(node.sampled_T)
    return dataclasses.replace(node, sampled_T=sampled_T, logprob_T=None, weight_T=None)


def wording(message: Message) -> str:
    """An action in words, without the call's notation: nobody should run it.

    >>> wording(Message("assistant", "Done."))
    'say "Done."'
    """
    calls = [f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in message.tool_calls]
    return "; ".join(calls) or f"say {json.dumps(message.content, ensure_ascii=False)}"


def value_of(trajectory: Trajectory, key: str) -> Any:
    """`task`, `environment` or `split` of a trajectory, or what its meta holds under another key; None for nothing."""
    return getattr(trajectory, key) if key in ("task", "environment", "split") else trajectory.meta.get(key)


def problem(trajectory: Trajectory, episode: Episode, *, thoughts: bool = False, errors: bool = False) -> str:
    """The first rule of tool dialogues that an episode breaks, as `rule: details`; '' where it breaks none."""
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
