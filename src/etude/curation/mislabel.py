"""Wrong labels on purpose: a share of the calls gets an argument that belongs to another episode.

For studies of how a method bears noisy demonstrations. A wrong value is plausible, for it stood under the same tool and
the same name elsewhere in the data, but nothing in its own dialogue leads to it.
"""

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import log, split_episodes, untokenised
from etude.trajectory import ToolCall, Trajectory


@part
def mislabel(trajectories: list[Trajectory], *, share: float = 0.2, seed: int = 0) -> list[Trajectory]:
    """One-episode trajectories in the same order; those that changed have no tokens until they are rendered again.

    share: of the calls with arguments, 0 to 1, that are given a wrong one. seed: of which, and of the values.

    What the world answered stays as it was. Raises RecipeError for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise RecipeError(f"curation/mislabel: share={share} is not a share; give 0 (nothing) to 1 (every call)")
    random = np.random.default_rng(seed)
    alone = [one for t in trajectories for one in split_episodes(t)]
    seen: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for call in (call for t in alone for m in t.messages for call in m.tool_calls):
        for name, value in call.arguments.items():
            if value not in seen[call.name, name]:
                seen[call.name, name].append(value)
    wrong = 0

    def changed(call: ToolCall) -> ToolCall:
        nonlocal wrong
        if random.random() >= share or not call.arguments:
            return call
        name = list(call.arguments)[random.integers(len(call.arguments))]
        others = [value for value in seen[call.name, name] if value != call.arguments[name]]
        if not others:
            return call
        wrong += 1
        return dataclasses.replace(call, arguments=call.arguments | {name: others[random.integers(len(others))]})

    found = []
    for trajectory in alone:
        messages = [dataclasses.replace(m, tool_calls=tuple(map(changed, m.tool_calls))) for m in trajectory.messages]
        same = messages == trajectory.messages
        found.append(trajectory if same else dataclasses.replace(untokenised(trajectory), messages=messages))
    log.info("mislabel: %d calls got a wrong argument", wrong)
    return found
