"""A world whose refusals teach: the actionable augmentation of Environment Tuning, around any world that knows why.

Lu et al. 2025, "Don't Just Fine-tune the Agent, Tune the Environment", arXiv:2510.10197: an opaque error becomes a
lesson that says which precondition failed, which tool meets it or which rule an argument broke, and never the answer.
What a world has to say is its sessions' `lesson`; this one says where it is said: in the tasks of a split whose name
ends with `+`. `train+` are the tasks of `train` with lessons, `train` those without, so that the last stage of a
curriculum practises in the world as it is, which is the world that is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from etude.core.errors import PartError
from etude.core.parts import part
from etude.environments.base import TAUGHT, LazyTasks, Tasks, ToolSession
from etude.protocols import Environment, Session, Task


@part
@dataclass(eq=False)
class lessons(Tasks):
    """The tasks of a world, with lessons in the splits that end with `+`. Raises PartError for a world without any."""

    world: Environment
    """One whose sessions have a `lesson`, such as `devices`."""

    def __post_init__(self) -> None:
        session = self.world.open()
        if not isinstance(session, ToolSession) or type(session).lesson is ToolSession.lesson:
            raise PartError(
                f"environments/lessons: {self.world.name!r} has no lessons; give its session"
                " lesson(name, arguments, result) -> str"
            )
        self.name, self.reward_range = f"lessons/{self.world.name}", self.world.reward_range

    def __getattr__(self, name: str) -> Any:
        """What else the world declares, such as `solve`; its methods get tasks of this world."""
        if name == "world" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.world, name)

    def tasks(self, split: str) -> Sequence[Task]:
        """The world's own tasks of that split; of a split `X+` those of `X`, by other ids."""
        tasks, plus = self.world.tasks(split.removesuffix(TAUGHT)), TAUGHT * split.endswith(TAUGHT)

        def make(i: int) -> Task:
            return replace(tasks[i], id=tasks[i].id + plus, environment=self, split=split)

        return LazyTasks(make, len(tasks))

    def open(self) -> Session:
        """The world's own session, which teaches where it is reset to a task of `X+`."""
        return self.world.open()
