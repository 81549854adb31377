"""What the scorers share: the agent's turns, its final answer, the accepted ones, a judge's answer.

Gold answers are read from `trajectory.meta["answer"]`: one, or a list of accepted ones. A failed episode is not scored
at all, which is neither 0 nor NaN; `rollout.collect` sees to that, and to the scorers' ranges.
"""

from __future__ import annotations

import json
from typing import Any

from etude.core.errors import ScoreError
from etude.protocols import Policy, Sampling
from etude.tools.answers import words as words
from etude.trajectory import Episode, Message, Trajectory


def place(trajectory: Trajectory, episode: Episode) -> str:
    """Which episode, for an error's text."""
    return f"trajectory {trajectory.id}, episode ending at node {episode.leaf}"


def turns(trajectory: Trajectory, episode: Episode) -> list[Message]:
    """What the agent said: the sampled messages of the path; in a log that sampled nothing, all of the assistant's."""
    return [trajectory.messages[trajectory.nodes[n].message] for n, _ in steps(trajectory, episode)]


def steps(trajectory: Trajectory, episode: Episode) -> list[tuple[int, list[Message]]]:
    """Each turn of the agent: the node that was sampled, and the messages that came until the next turn.

    Where a template rewrote history, the path holds copies of earlier turns; they count as the turns that they repeat.
    """
    sampled = {trajectory.nodes[n].message: n for n in trajectory.nodes_of(episode) if trajectory.nodes[n].sampled}
    found: list[tuple[int, list[Message]]] = []
    for n in trajectory.path(episode.leaf):
        message = trajectory.nodes[n].message
        if trajectory.messages[message].role == "assistant" and (message in sampled or not sampled):
            found.append((sampled.get(message, n), []))
        elif found:
            found[-1][1].append(trajectory.messages[message])
    return found


def final_answer(trajectory: Trajectory, episode: Episode) -> str:
    """The agent's last message, or the one argument of its call to a tool `answer`; empty if it said nothing."""
    said = turns(trajectory, episode)
    if not said:
        return ""
    answers = [c for c in said[-1].tool_calls if c.name == "answer" and len(c.arguments) == 1]
    return str(next(iter(answers[-1].arguments.values()))) if answers else said[-1].content.strip()


def accepted_answers(trajectory: Trajectory) -> list[Any]:
    """The gold answers. Raises ScoreError where the trajectory carries none."""
    answer = trajectory.meta.get("answer")
    if answer is None or answer == []:
        raise ScoreError(
            f"trajectory {trajectory.id} (task {trajectory.task}) has no gold answer; put it, or a list of accepted"
            " ones, into meta['answer'], or use a scorer that needs none, as `environment`"
        )
    return answer if isinstance(answer, list) else [answer]


def transcript(trajectory: Trajectory, episode: Episode) -> str:
    """The dialogue as one JSON object a line: what is said in it cannot pass for the end of it."""
    rows = []
    for m in trajectory.dialogue(episode.leaf):
        row: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.tool_calls:
            row["calls"] = [{"name": call.name, "arguments": call.arguments} for call in m.tool_calls]
        rows.append(json.dumps(row, ensure_ascii=False))
    return "\n".join(rows)


async def ask(policy: Policy, question: str, *, sampling: Sampling, seed: int) -> str:
    """What a policy answers to one question, in a dialogue of its own."""
    dialogue = Trajectory("judgement", "judgement")
    leaf = dialogue.add(Message("user", question), None)
    _, action = await policy.act(dialogue, leaf, sampling=sampling, seed=seed)
    return action.message.content
