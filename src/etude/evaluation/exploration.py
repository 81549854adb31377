"""How an agent explores a bandit: coverage, frequency bias, and the gap between knowing and doing.

Schmied et al. 2025, "LLMs are Greedy Agents", arXiv:2504.16078, section 4.2. An episode is its
(arm, payment) pairs in order.
"""

import re
from collections.abc import Sequence

import numpy as np

from etude.environments.bandit import BUTTONS, best, ucb
from etude.trajectory import Episode, Trajectory

History = Sequence[tuple[int, float]]


def presses(trajectory: Trajectory, episode: Episode) -> list[tuple[int, float]]:
    """The (arm, payment) of an episode of `environments/bandit`; calls that were refused are left out."""
    found, asked = [], dict[str, int]()
    for message in trajectory.dialogue(episode.leaf):
        for call in message.tool_calls:
            asked[call.id] = BUTTONS.find(str(call.arguments.get("button", "?")))
        if message.role == "tool" and message.tool_call_id in asked and not message.content.startswith("error:"):
            found.append((asked[message.tool_call_id], float(message.content)))
    return found


def coverage(history: History, arms: int) -> np.ndarray:
    """float64 [T]; the share of arms tried after each press. A greedy agent stops early."""
    return np.array([len({arm for arm, _ in history[: t + 1]}) / arms for t in range(len(history))])


def frequency_bias(histories: Sequence[History], arms: int) -> dict[int, float]:
    """How often an arm was in the context -> the share of those arms that were pressed next, whatever they paid."""
    shown: dict[int, list[bool]] = {}
    for history in histories:
        for t, (pressed, _) in enumerate(history):
            for arm in range(arms):
                count = sum(a == arm for a, _ in history[:t])
                shown.setdefault(count, []).append(arm == pressed)
    return {count: float(np.mean(shown[count])) for count in sorted(shown)}


def doing(histories: Sequence[History], arms: int, known: Sequence[Sequence[bool]] | None = None) -> float:
    """Of the presses where UCB's and the greedy arms have none in common: the share that were UCB's. NaN without any.

    known: of each press, whether the agent had worked it out (see `knows`); only those count. 1 - this is the gap
    between knowing and doing.
    """
    right = []
    for e, history in enumerate(histories):
        for t, (pressed, _) in enumerate(history):
            before = list(history[:t])
            wise, greedy = best(before, arms, "ucb"), best(before, arms, "greedy")
            if not set(wise) & set(greedy) and (known is None or known[e][t]):
                right.append(pressed in wise)
    return float(np.mean(right)) if right else np.nan


def knows(text: str, history: History, arms: int, tolerance: float = 0.01) -> bool:
    """Whether a text gives UCB's value of every arm, as `B = 1.25`; an arm that was never tried is `inf`.

    >>> knows("A = 1.0, B = inf", [(0, 1.0)], 2)
    True
    """
    written = dict(re.findall(r"\b([A-T])\s*=\s*(-?inf|-?\d+(?:\.\d+)?)", text))
    values = ucb(list(history), arms)
    said = [float(written.get(BUTTONS[arm], "nan")) for arm in range(arms)]
    return all(s == v or abs(s - v) <= tolerance for s, v in zip(said, values, strict=True))
