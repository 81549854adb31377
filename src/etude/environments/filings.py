"""Questions about invented firms, answered by ranking: first the types of document, then the passages of one.

FinAgentBench (Choi et al. 2025, arXiv:2508.14052) separates the two steps of finding something in what a firm files, so
that the second is not spoilt by mistakes in the first. Three stages, each a task of its own about the same question:

type     the five types of document, of which one answers the question and another says something about it
passage  the passages of the right document: one that answers, one beside it, and others
both     first the types, then the passages of the document that was put first, wherever that leads

A ranking is names of candidates with commas between them, `proxy, annual`, best first. Its reward is nDCG, MAP or MRR
of the first five, with gain 2 for what answers and 1 for what helps; of `both` that of the passages, 0 where another
document was opened. A name that is not there, or is there twice, earns 0.

What a firm files is made by rules, so that what is relevant is known: each topic is told in one type of document, under
two headings. Analysts ask in other words than firms file in, and cautionary passages use the analysts' words.

Departures: invented firms and rules in the place of S&P 500 filings and experts' labels; six short passages a document.
"""

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, suggest
from etude.core.parts import part
from etude.environments.base import Tasks, ToolSession, hashed_split, invented_names
from etude.protocols import Observation, Task
from etude.tools import ranking
from etude.trajectory import Message

INSTRUCTION = "Rank what answers the question, the best first, by name: one, another, ..."
STAGES = ("type", "passage", "both")
METRICS = ("ndcg", "map", "mrr")
DEPTH = 5  # how far down a ranking counts
FIRMS = 120
TYPES = {
    "annual": "audited figures and everything that matters about the year",
    "quarterly": "unaudited figures of three months",
    "current": "events, told within days",
    "proxy": "what shareholders vote on at their meeting",
    "call": "management speaks with the press and investors",
}
# topic -> how analysts ask, the type that answers and the one that helps, and what the answering document says of it:
# the heading that answers and the one that helps, each with its text
TOPICS: dict[str, tuple[list[str], tuple[str, str], dict[str, str]]] = {
    "risk": (
        ["What could go wrong for {f}?", "Which dangers does {f} face?", "What should owners of {f} fear?"],
        ("annual", "quarterly"),
        {"risks": "adverse changes may harm us", "litigation": "{n} claims are pending against us"},
    ),
    "products": (
        ["What does {f} sell?", "How does {f} earn its money?", "What is {f} known for?"],
        ("annual", "call"),
        {"business": "we supply {n} lines of tools", "properties": "we own {n} plants"},
    ),
    "quarter": (
        ["How did {f} do in spring?", "Did {f} grow since winter?", "Was the last season good for {f}?"],
        ("quarterly", "call"),
        {"interim": "net income was {n} million", "segments": "tools contributed {n} million"},
    ),
    "cash": (
        ["Can {f} pay its bills?", "Is {f} short of money?", "How long will the cash of {f} last?"],
        ("quarterly", "annual"),
        {"liquidity": "we hold {n} million at banks", "borrowings": "notes of {n} million mature soon"},
    ),
    "deal": (
        ["Whom did {f} buy?", "Which rival did {f} take over?", "What does the deal of {f} cost?"],
        ("current", "call"),
        {"acquisition": "an agreement over {n} million was signed", "financing": "a bridge loan was drawn"},
    ),
    "exit": (
        ["Why did a manager leave {f}?", "Who was fired at {f}?", "Who takes over after the exit at {f}?"],
        ("current", "proxy"),
        {"departure": "an officer resigned", "appointment": "a successor was named within {n} days"},
    ),
    "pay": (
        ["How much does the chief of {f} earn?", "Is the chief of {f} paid too well?", "What is the bonus at {f}?"],
        ("proxy", "annual"),
        {"compensation": "salaries came to {n} million", "incentives": "{n} options were granted"},
    ),
    "control": (
        ["Who watches the managers of {f}?", "Who can fire the chief of {f}?", "Who has the last word at {f}?"],
        ("proxy", "current"),
        {"directors": "{n} nominees stand for election", "committees": "audit has {n} members"},
    ),
    "future": (
        ["What does {f} expect next?", "How will {f} do next year?", "Will {f} grow?"],
        ("call", "current"),
        {"guidance": "we now see revenue up {n} percent", "demand": "orders stand at {n} million"},
    ),
    "cost": (
        ["Why does {f} keep less of each sale?", "Why is {f} dear to run?", "What eats the profit of {f}?"],
        ("call", "quarterly"),
        {"margin": "gross margin was {n} percent", "expenses": "freight added {n} million"},
    ),
}
GENERAL = {
    "caution": "what we expect to sell, buy, pay or earn next year could go wrong",
    "contents": "for who leaves, who is the chief and how we grow see what else we file",
}


@part
@dataclass(eq=False)
class filings(Tasks):
    """Rank types of document, then passages, for questions about firms.

    >>> [task.skills for task in filings().tasks("test")[:3]]
    [('type',), ('passage',), ('both',)]
    """

    metric: str = "ndcg"
    """The reward: `ndcg`, `map` or `mrr`."""
    name = "filings"
    reward_range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise PartError(f"environments/filings: no metric {self.metric!r}; {suggest(self.metric, METRICS)}")

    def tasks(self, split: str) -> Sequence[Task]:
        """Every question of the split's firms in its three stages, one after the other. Raises PartError for another.

        A firm is in `train`, `dev` or `test` (80/10/10) by a hash of its name.
        """
        if split not in (allowed := ("train", "dev", "test")):
            raise PartError(f"environments/filings has no split {split!r}; {suggest(split, allowed)}")
        return [
            Task(
                f"filings/{data['firm']}/{data['topic']}/{stage}", self, split, {"stage": stage, **data},
                data["topic"], 1.0 + STAGES.index(stage), (stage,), "filings.py",
            )
            for data in _questions()[split]
            for stage in STAGES
        ]  # fmt: skip

    def open(self) -> "FilingsSession":
        return FilingsSession(self)

    def solve(self, task: Task, seed: int) -> list[Message]:
        """What is relevant, the best first."""
        data = task.data
        kind, helps = TOPICS[data["topic"]][1]
        types, passages = ", ".join([kind, helps]), ", ".join(TOPICS[data["topic"]][2])
        said = {"type": [types], "passage": [passages], "both": [types, passages]}[data["stage"]]
        return [Message("assistant", text) for text in said]

    def secrets(self, task: Task) -> list[str]:
        """The rankings; the names alone are shown, in no order."""
        return [message.content for message in self.solve(task, 0)]


class FilingsSession(ToolSession):
    """One question, in one stage or in both."""

    def __init__(self, world: filings):
        super().__init__(max_steps=4)
        self.metric = world.metric

    async def begin(self, task: Task, seed: int) -> Observation:
        self.tools, self.data = [], task.data
        kind, helps = TOPICS[task.data["topic"]][1]
        self.gain: dict[str, float] = {kind: 2, helps: 1}
        shown = list(zip(task.data["types"], map(TYPES.__getitem__, task.data["types"]), strict=True))
        self.choosing = task.data["stage"] == "both"
        if task.data["stage"] == "passage":
            shown = self._open(kind)
        self.names = [name for name, _ in shown]
        return Observation(
            (Message("system", INSTRUCTION), Message("user", f"{task.data['question']}\n{_list(shown)}"))
        )

    async def reply(self, said: str) -> list[Message] | None:
        """After the types, the passages of the first, unless the ranking cannot be read."""
        ranked = read(said, self.names)
        if not self.choosing or not ranked:
            return None
        self.choosing = False
        shown = self._open(ranked[0])
        self.names = [name for name, _ in shown]
        return [Message("user", _list(shown))]

    async def finish(self, answer: str) -> float:
        ranked = read(answer, self.names)
        return 0.0 if self.choosing or not ranked else measures(ranked, self.gain)[self.metric]

    def current_reward(self) -> float:
        """What the episode would earn if it ended now: nothing, for it has no ranking yet."""
        return 0.0

    def _open(self, kind: str) -> list[tuple[str, str]]:
        self.gain = dict(zip(TOPICS[self.data["topic"]][2], (2, 1), strict=True))
        return [(heading, text) for heading, text in self.data["documents"][kind]]


def read(said: str, names: Sequence[str]) -> list[str] | None:
    """The names that are said, best first; None where one is none of these, or comes twice.

    >>> read("proxy, annual", ["annual", "call", "proxy"])
    ['proxy', 'annual']
    """
    ranked = [name.strip() for name in said.split(",")]
    return ranked if len(set(ranked)) == len(ranked) and set(ranked) <= set(names) else None


def measures(ranked: Sequence[str], gain: Mapping[str, float]) -> dict[str, float]:
    """nDCG@5, MAP@5 and MRR@5 of a ranking; what has any gain is relevant to the last two."""
    first, relevant = ranked[:DEPTH], [name for name, value in gain.items() if value > 0]
    return {
        "ndcg": ranking.ndcg(first, gain, DEPTH),
        "map": ranking.average_precision(first, relevant),
        "mrr": ranking.reciprocal_rank(first, relevant),
    }


def _list(shown: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in shown)


@functools.cache
def _questions() -> dict[str, list[dict[str, Any]]]:
    """Split -> its questions, those of a firm apart from each other."""
    rng = random.Random("filings")
    found: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    for firm in invented_names(rng, FIRMS):
        documents = {kind: _document(rng, firm, kind) for kind in TYPES}
        for topic, (asked, _, _) in TOPICS.items():
            types = rng.sample(list(TYPES), len(TYPES))
            question = rng.choice(asked).format(f=firm)
            data = {"firm": firm, "topic": topic, "question": question, "types": types, "documents": documents}
            found[hashed_split(firm)].append(data)
    for questions in found.values():
        rng.shuffle(questions)
    return found


def _document(rng: random.Random, firm: str, kind: str) -> list[list[str]]:
    """Heading and text of its passages, in no order."""
    said = dict(GENERAL)
    for _, (answers, _), passages in TOPICS.values():
        said |= passages if answers == kind else {}
    texts = [[heading, f"{firm}: {text.format(n=rng.randint(2, 9))}"] for heading, text in said.items()]
    return rng.sample(texts, len(texts))
