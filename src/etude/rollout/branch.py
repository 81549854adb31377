"""Going back to states of recorded episodes and playing on from there.

What another action would have led to, what a state is worth to the policy, whether a step was needed: each is asked by
playing a recorded episode again up to a state. A world begins every episode of a task the same, so the recorded answers
lead to the recorded observations; where they do not, nothing that comes after means anything, and it is an error.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.core.errors import TrajectoryError
from etude.protocols import Action, Agent, Policy, Sampling, Task
from etude.rollout.collect import attach, collect
from etude.trajectory import Message, Trajectory


class Replayed:
    """A policy that says what is written for its task, and then lets another speak. Its own words hold no tokens."""

    def __init__(self, written: Mapping[str, Sequence[Message]], policy: Policy):
        self.written, self.policy = written, policy
        self.name, self.version = policy.name, policy.version
        if hasattr(policy, "generator"):
            self.generator: Any = policy.generator  # type: ignore[attr-defined]

    async def act(
        self, trajectory: Trajectory, leaf: int | None, *, sampling: Sampling, seed: int
    ) -> tuple[int, Action]:
        """The next written message, or what the other policy does."""
        written = self.written[trajectory.task]
        turn = 0 if leaf is None else len(said(trajectory, leaf))
        if leaf is not None and turn < len(written):
            return leaf, Action(written[turn])
        return await self.policy.act(trajectory, leaf, sampling=sampling, seed=seed)


def said(trajectory: Trajectory, leaf: int) -> list[int]:
    """The nodes of the answers on the path to `leaf`."""
    path = trajectory.path(leaf)
    return [n for n in path if trajectory.messages[trajectory.nodes[n].message].role == "assistant"]


async def branch(
    policy: Policy | None,
    origins: Sequence[Trajectory],
    tasks: Mapping[str, Task],
    *,
    agent: Agent,
    every: int = 1,
    turns: int | None = None,
    group: int = 1,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    max_turns: int = 8,
    name: str = "",
    on_episode: Callable[[], None] = lambda: None,
) -> list[Trajectory]:
    """Play on from the states before each origin's answers 0, `every`, 2 `every`, ….

    policy: who plays on. With None it is the origin itself, without the answer it would give in that state; in the
        place of an answer that called no tool it gives an empty one.
    origins: one-episode trajectories. tasks: task id -> task, for each of theirs.
    turns: most answers of the policy; by default as many as `max_turns` leaves.
    group: episodes from each state.

    A branch's meta has `origin` (the origin's id) and the number of answers before the state: as `start`, or without a
    policy as `without`. An answer that could not be read has no message to play, so nothing starts behind one.
    Raises TrajectoryError where a world answers a replay otherwise than it is recorded.
    """
    attach(policy)
    rounds: defaultdict[tuple[int, int], list[tuple[Trajectory, list[Message]]]] = defaultdict(list)
    plays: Counter[str] = Counter()
    for origin in origins:
        readable = _readable(origin)
        for state in range(0, len(readable), every):
            written = readable[:state] if policy else _without(readable, state)
            rounds[state, plays[origin.task]].append((origin, written))
        plays[origin.task] += 1  # what is written is found by the task's id, so each round has a task once
    found = []
    for (state, n), starting in sorted(rounds.items(), key=lambda item: item[0]):
        limit = max_turns if turns is None else min(max_turns, state + turns)
        made = await collect(
            Replayed({origin.task: written for origin, written in starting}, policy or _Silent()),
            [tasks[origin.task] for origin, _ in starting],
            agent=agent,
            group=group,
            sampling=sampling,
            seed=seed + 1009 * state + n,
            max_turns=limit if policy else 1 + max(len(written) for _, written in starting),
            name=f"{name}{state}.{n}/",
            on_episode=on_episode,
        )
        for (origin, _), trajectory in zip(starting, made, strict=True):
            _check_replay(origin, trajectory, state)
            meta = {"origin": origin.id, "start" if policy else "without": state}
            found.append(dataclasses.replace(trajectory, meta=trajectory.meta | meta))
    return found


class _Silent:
    """Answers with nothing: for a world that what is written does not bring to its end."""

    name, version = "silent", 0

    async def act(
        self, trajectory: Trajectory, leaf: int | None, *, sampling: Sampling, seed: int
    ) -> tuple[int, Action]:
        return leaf or 0, Action(Message("assistant", ""))


def _without(answers: Sequence[Message], k: int) -> list[Message]:
    silent = [] if answers[k].tool_calls else [Message("assistant", "")]
    return [*answers[:k], *silent, *answers[k + 1 :]]


def _readable(origin: Trajectory) -> list[Message]:
    """The answers before the first that could not be read."""
    nodes = said(origin, origin.episodes[0].leaf)
    malformed = {node.message for node in origin.nodes if "malformed" in node.scores}
    good = next((k for k, n in enumerate(nodes) if origin.nodes[n].message in malformed), len(nodes))
    return [origin.messages[origin.nodes[n].message] for n in nodes[:good]]


def _check_replay(origin: Trajectory, made: Trajectory, answers: int) -> None:
    """Raise TrajectoryError unless what led to the state is what was recorded."""
    recorded = origin.dialogue(origin.episodes[0].leaf)
    places = [i for i, message in enumerate(recorded) if message.role == "assistant"]
    until = places[answers] if answers < len(places) else len(recorded)
    for episode in made.episodes:
        if episode.failure is not None:
            continue
        for i, (before, again) in enumerate(zip(recorded[:until], made.dialogue(episode.leaf), strict=False)):
            if before != again:
                raise TrajectoryError(
                    f"trajectory {origin.id} cannot be played again: message {i} was {before.content[:60]!r} "
                    f"and is {again.content[:60]!r}; branch before the data is edited, with the agent that made it"
                )
