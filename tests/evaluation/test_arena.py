"""evaluation/arena: every two players meet in every game from both seats, and the stronger one is rated higher."""

import itertools

from etude.agents.loops import modular, native
from etude.environments.arcade import GAMES, Nim
from etude.evaluation.arena import Player, arena, chance
from etude.evaluation.elo import ratings
from etude.policies.scripted import scripted
from etude.trajectory import Message, ToolCall


def expert(dialogue):
    """Plays nim from what is shown; asked for anything but a move, it says so."""
    shown = dialogue[-1].content
    if "What is the aim?" in shown:
        return Message("assistant", "win")
    lines = [line for line in shown.splitlines() if line[:2] == "a "]
    game = object.__new__(Nim)
    game.piles = [int(n) for n in lines[-1].split()[1::2]] if lines else [1, 1, 1]
    word = game.best() if any(game.piles) else "a1"
    return Message("assistant", tool_calls=(ToolCall("act", {"action": word}, "call_1"),))


async def test_all_meet_all_from_both_seats():
    loops = {"chance": native(), "modules": modular(modules=["planning"])}
    players = {name: Player(chance(n), loop) for n, (name, loop) in enumerate(loops.items())}
    players["chance"] = Player(chance(), native())
    players["modules"] = Player(scripted(expert), loops["modules"])
    players["expert"] = Player(scripted(expert), native())
    found = await arena(players, games=["nim"], battles=6)
    assert [(b.one, b.other) for b in found.battles] == [
        pair for pair in itertools.combinations(players, 2) for _ in range(6)
    ]
    assert not [e.failure for t in found.trajectories for e in t.episodes if e.failure]
    sides = {name: [t.task for t in found.trajectories if t.id.startswith(f"{name}/")] for name in players}
    for tasks in sides.values():
        assert len(tasks) == 12
        assert sum(task.endswith("/0") for task in tasks) == 6, "half of them from the first seat"
    rewards = [t.episodes[0].reward for t in found.trajectories]
    assert all(a + b == 1 for a, b in zip(rewards[::2], rewards[1::2], strict=True))
    rated = ratings(found.battles, draws=0)
    assert list(rated)[-1] == "chance"
    again = await arena(players, games=["nim"], battles=6)
    assert again.battles == found.battles
    assert "nim" in GAMES
