"""Calls as ordinary dialogue, so that following a format and knowing what to do are learnt apart.

Agent-FLAN, Chen et al. 2024, "Designing Data and Methods of Effective Agent Tuning", arXiv:2403.12881: a call becomes
turns of a chat, thought, then `Which tool?` and its name, then `With which arguments?` and their values; a small share
of the data keeps the explicit format.
Departures: the questions are always worded the same.
"""

import itertools
import json
from typing import Any

import numpy as np

from etude.core.parts import part
from etude.curation.base import log, saying, split_episodes
from etude.trajectory import Message, Trajectory

TOOL, ARGUMENTS, RESULT = "Which tool?", "With which arguments?", "Result: "
THINK = "What do you think?"


@part
def chat_format(trajectories: list[Trajectory], *, share: float = 0.8, seed: int = 0) -> list[Trajectory]:
    """One-episode trajectories in the same order, of which a share, drawn by chance, is rewritten, as text.

    share: of the episodes that hold calls, 0 to 1. seed: of which.

    `meta["chat_format"]` marks what was rewritten. What an answer thinks or says beside its calls comes before them.
    """
    alone = [one for t in trajectories for one in split_episodes(t)]
    calling = [i for i, one in enumerate(alone) if any(m.tool_calls for m in one.messages)]
    order = np.random.default_rng(seed).permutation(len(calling))
    chosen = {calling[i] for i in order[: round(share * len(calling))]}
    log.info("chat_format: %d of %d episodes are written as chat", len(chosen), len(alone))
    return [_rewritten(one) if i in chosen else one for i, one in enumerate(alone)]


def _rewritten(one: Trajectory) -> Trajectory:
    other = saying(one, as_chat(one.dialogue(one.episodes[0].leaf)))
    other.meta = one.meta | {"chat_format": True}
    return other


def as_chat(dialogue: list[Message]) -> list[Message]:
    """The dialogue without tool calls: each is two questions and two answers, behind a thought where there is one."""
    turns: list[Message] = []
    for message in dialogue:
        if message.role == "tool":
            turns.append(Message("user", RESULT + message.content))
        elif not message.tool_calls:
            turns.append(message)
        else:
            if thought := _thought(message):
                turns += _turn(THINK, thought)
            for call in message.tool_calls:
                arguments = json.dumps(call.arguments, ensure_ascii=False)
                turns += [*_turn(TOOL, call.name), *_turn(ARGUMENTS, arguments)]
    return _joined(turns)


def _thought(message: Message) -> str:
    return "\n".join(filter(None, [message.thought, message.content]))


def _turn(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


def _joined(turns: list[Message]) -> list[Message]:
    """Roles must take turns: what the user says in a row is one message, line by line."""
    joined: list[Message] = []
    for message in turns:
        if joined and message.role == "user" == joined[-1].role:
            joined[-1] = Message("user", f"{joined[-1].content}\n{message.content}")
        else:
            joined.append(message)
    return joined


def steps_of(chat: list[Message]) -> list[tuple[str, str, dict[str, Any]]]:
    """The (thought, tool, arguments) that a chat says: what `as_chat` was given."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    thought, tool = "", ""
    for question, answer in itertools.pairwise(chat):
        asked = question.content.rpartition("\n")[2] if question.role == "user" else ""
        if asked == THINK:
            thought = answer.content
        elif asked == TOOL:
            tool = answer.content
        elif asked == ARGUMENTS:
            found.append((thought, tool, json.loads(answer.content)))
            thought = ""
    return found
