"""Several worlds as one: their tasks in turn, each played in its own world.

How a benchmark such as Orak (arXiv:2506.03610) puts games of many makers behind one interface: any agent plays the
games of `arcade` beside those of `babyai`, `textarena`, `textworld_express` or worlds of one's own, and is measured on
worlds that were held out. A task keeps its own world and id, so that references, reports and choices by `domain` are
that world's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from etude.core import recipe
from etude.core.errors import EnvironmentFault, EtudeError, MissingExtra, PartError
from etude.core.parts import part
from etude.environments.base import Tasks
from etude.protocols import Environment, Observation, Session, Step, Task
from etude.trajectory import Message


@part
@dataclass(eq=False)
class suite(Tasks):
    """Worlds one after the other, task by task. Raises PartError without worlds, MissingExtra for a lacking package."""

    worlds: list[Any] = field(default_factory=lambda: ["arcade"])
    """Of the splits `train`, `dev` and `test`, as a recipe writes them: `arcade`, `{babyai: {levels: GoToLocal}}`."""
    held: list[Any] = field(default_factory=list[Any])
    """Of the split `domains`, which has their test tasks, or, where that is empty, the worlds' own `domains`."""
    optimal = False

    def __post_init__(self) -> None:
        if not self.worlds:
            raise PartError("environments/suite: no worlds; name one at least, such as  worlds: [arcade]")
        self.played, self.kept = ([_built(one) for one in some] for some in (self.worlds, self.held))
        every = [*self.played, *self.kept]
        self.name = f"suite/{'+'.join(world.name for world in every)}"
        self.reward_range = (min(w.reward_range[0] for w in every), max(w.reward_range[1] for w in every))
        self.at_once = min(getattr(world, "at_once", 64) for world in every)

    @property
    def speakers(self) -> list[Any]:
        return [speaker for world in (*self.played, *self.kept) for speaker in getattr(world, "speakers", ())]

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split of those worlds that have it. Raises PartError where none has."""
        held = split == "domains" and self.kept
        found = [self._of(world, "test" if held else split) for world in (self.kept if held else self.played)]
        turns = max(map(len, found))
        if not turns:
            raise PartError(f"{self.name} has no split {split!r}: none of its worlds has")
        return [tasks[n] for n in range(turns) for tasks in found if n < len(tasks)]

    def _of(self, world: Environment, split: str) -> Sequence[Task]:
        try:
            return world.tasks(split)
        except MissingExtra:
            raise
        except (EtudeError, KeyError, ValueError):  # how a world says that it has no such split
            return []

    def solve(self, task: Task, seed: int) -> Sequence[Message]:
        """The solution of the task's own world. Raises EnvironmentFault where that has none."""
        if not hasattr(task.environment, "solve"):
            raise EnvironmentFault(f"{task.environment.name} has no solutions")
        return task.environment.solve(task, seed)  # type: ignore[attr-defined]

    def open(self) -> SuiteSession:
        return SuiteSession()


def _built(world: Any) -> Any:
    return recipe.build("environments", world) if isinstance(world, (str, dict)) else world


class SuiteSession:
    """A session of the world of whatever task it is reset to."""

    PASSED = ("current_reward", "legal")
    """What else a world's session may have that is asked for from outside."""
    task: Task | None = None
    inner: Any = None

    @property
    def tools(self) -> list[dict[str, Any]]:
        return self._there().tools

    def _there(self) -> Session:
        if self.inner is None:
            raise EnvironmentFault("the session is not begun; reset it")
        return self.inner

    async def _enter(self, task: Task) -> None:
        await self.close()
        self.task, self.inner = task, task.environment.open()

    async def reset(self, task: Task, seed: int) -> Observation:
        await self._enter(task)
        return await self._there().reset(task, seed)

    async def step(self, action: Message | np.ndarray) -> Step:
        return await self._there().step(action)

    async def snapshot(self) -> Any:
        return self.task, await self._there().snapshot()

    async def restore(self, snapshot: Any) -> None:
        task, inner = snapshot
        await self._enter(task)
        await self._there().restore(inner)

    def __getattr__(self, name: str) -> Any:
        if name not in self.PASSED:
            raise AttributeError(name)
        return getattr(self.inner, name)

    async def close(self) -> None:
        if self.inner is not None:
            await self.inner.close()
            self.inner = None
