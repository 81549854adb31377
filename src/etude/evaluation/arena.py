"""Head to head: agents play board games against each other, and battles become ratings.

The arena of Orak (arXiv:2506.03610). A player is a policy in a loop, so that any model with any modules meets any
other. Each two players play every game from both seats, each side an ordinary episode that is recorded (see
`environments/arcade`).
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from etude.environments.arcade import CAN, Table
from etude.evaluation.elo import Battle
from etude.policies.scripted import scripted
from etude.protocols import Agent, Policy, Sampling
from etude.rollout.collect import collect
from etude.trajectory import Message, ToolCall, Trajectory

GREEDY = Sampling(max_tokens=64, temperature=0.0)


@dataclass(frozen=True)
class Player:
    """Who plays, and how."""

    policy: Policy
    agent: Agent
    sampling: Sampling = GREEDY


@dataclass
class Arena:
    """What was played."""

    battles: list[Battle] = field(default_factory=list[Battle])
    trajectories: list[Trajectory] = field(default_factory=list[Trajectory])
    """Two for each battle, one from each seat."""


async def arena(
    players: Mapping[str, Player],
    *,
    games: Sequence[str] = ("nim", "tictactoe", "four"),
    battles: int = 10,
    seed: int = 0,
    max_turns: int = 60,
    on_battle: Callable[[], None] = lambda: None,
) -> Arena:
    """Battles of each two players.

    games: of `environments/arcade`, for two. battles: of each two players in each game; seats change after each.
    max_turns: most answers of a policy in one game, of which modules take their share.
    """
    found = Arena()
    for (one, other), game, n in itertools.product(itertools.combinations(players, 2), games, range(battles)):
        table = Table(game, seed * 10_007 + n // 2)  # the same beginning from both seats
        seats = (one, other) if n % 2 == 0 else (other, one)

        async def play(seat: int, name: str, table: Table = table, n: int = n) -> list[Trajectory]:
            player = players[name]
            return await collect(
                player.policy,
                [table.tasks[seat]],
                agent=player.agent,
                sampling=player.sampling,
                seed=seed + n,
                max_turns=max_turns,
                name=f"{name}/",
            )

        for made in await asyncio.gather(*(play(seat, name) for seat, name in enumerate(seats))):
            found.trajectories += made
        found.battles.append(Battle(one, other, table.score(seats.index(one))))
        on_battle()
    return found


def chance(seed: int = 0) -> scripted:
    """A policy that draws one of the actions that the last message lists: what chance is worth."""

    def draw(dialogue: list[Message]) -> Message:
        lines = [line for line in dialogue[-1].content.splitlines() if line.startswith(CAN)]
        words = lines[-1].removeprefix(CAN).split() if lines else [""]
        word = random.Random(f"{seed} {dialogue[-1].content}").choice(words)
        return Message("assistant", tool_calls=(ToolCall("act", {"action": word}, "call_1"),))

    return scripted(draw)
