"""A small invented corpus to read, and closed-book questions about it: what was learnt by heart, and nothing else.

Every place has one value per field. The split `train` is documents: the expert says the text, and what is said earns 1
where it is that text. `questions` asks about the first half of the places, for training to answer; `dev` and `test` ask
about the second half, which only the documents tell. A question offers four values; the reward is 1 for the right one.
"""

import random
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import LazyTasks, Tasks, ToolSession
from etude.protocols import Observation, Task
from etude.trajectory import Message

FIELDS = {
    "flag": ["red", "blue", "green", "white", "black", "gold"],
    "bird": ["owl", "crow", "swan", "duck", "hawk", "dove"],
    "trade": ["salt", "rice", "wood", "tea", "wool", "fish"],
    "stone": ["flint", "slate", "chalk", "jade", "amber", "opal"],
}


@part
@dataclass(eq=False)
class facts(Tasks):
    """Texts about invented places, and questions that can only be answered by whoever has read them.

    >>> facts().tasks("test")[0].id
    'facts/40/test/0'
    """

    places: int = 40
    """Documents; half of the places are asked about in training, the others in the test."""
    name = "facts"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.places < 4:
            raise PartError(f"environments/facts: places is {self.places!r}; give 4 or more")
        rng = random.Random("facts")
        names: dict[str, None] = {}
        while len(names) < self.places:
            syllables = (rng.choice("bdfgklmnprstv") + rng.choice("aeiou") for _ in range(2))
            names["".join([*syllables, rng.choice("lnrst")]).capitalize()] = None
        self._rows = [(name, {field: rng.choice(values) for field, values in FIELDS.items()}) for name in names]

    def tasks(self, split: str) -> LazyTasks:
        """Documents (`train`) or questions (`questions`, `dev`, `test`). Raises PartError for another split."""
        half = self.places // 2
        sizes = {"train": self.places, "questions": half * 4, "dev": half * 2, "test": half * 2}
        if split not in sizes:
            raise PartError(f"environments/facts has no split {split!r}; {suggest(split, sizes)}")
        return LazyTasks(lambda i: self._make(split, i), sizes[split])

    def _make(self, split: str, i: int) -> Task:
        identity, half = f"facts/{self.places}/{split}/{i}", self.places // 2
        if split == "train":
            place, values = self._rows[i]
            data: dict[str, Any] = {"prompt": "Text.", "says": document(place, values)}
            return Task(identity, self, split, data, "document", 0.0, ("reading",), "facts.py")
        rng, fields = random.Random(identity), list(FIELDS)
        first = 0 if split == "questions" else half
        place, values = self._rows[first + i % half]
        field = fields[i // half + (2 if split == "test" else 0)]
        options = [values[field], *rng.sample([v for v in FIELDS[field] if v != values[field]], 3)]
        rng.shuffle(options)
        prompt = f"What is the {field} of {place}: {', '.join(options[:3])} or {options[3]}?"
        data = {"prompt": prompt, "says": values[field]}
        return Task(identity, self, split, data, "question", 1.0, ("recall",), "facts.py")

    def open(self) -> "FactsSession":
        return FactsSession()

    def solve(self, task: Task, seed: int) -> list[Message]:
        """The document, or the answer."""
        return [Message("assistant", task.data["says"])]

    def secrets(self, task: Task) -> list[str]:
        """The document; a question offers its answer among others."""
        return [task.data["says"]] if task.domain == "document" else []


def document(place: str, values: dict[str, str]) -> str:
    """The text about one place, always of the same form."""
    return " ".join(f"The {field} of {place} is {value}." for field, value in values.items())


class FactsSession(ToolSession):
    """One text or one answer."""

    async def begin(self, task: Task, seed: int) -> Observation:
        self.data = task.data
        return Observation((Message("user", task.data["prompt"]),))

    async def finish(self, answer: str) -> float:
        return float(answer.strip(" .").lower() == self.data["says"].strip(" .").lower())
