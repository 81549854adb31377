"""Small reports for the tests of the report, its page and the comparison."""

from typing import Any

from etude.evaluation.gain import Measured, measured
from etude.evaluation.losses import Losses
from etude.evaluation.report import NOUNS, Report, build_report
from etude.evaluation.statistics import Figure
from etude.trajectory import Episode, Message, StopReason, ToolCall, Trajectory


def task(name: str, *solved: bool, says: str = "done") -> Trajectory:
    """One episode per outcome: a question, a call, what the tool said, an answer."""
    t = Trajectory(id=f"t-{name}", task=name)
    asked = t.add(Message("user", f"please do {name}"), None)
    for outcome in solved:
        call = t.add(Message("assistant", "", (ToolCall("act", {"on": name}),), thought="one call will do"), asked)
        leaf = t.add(Message("assistant", says), t.add(Message("tool", "ok", name="act"), call))
        t.episodes.append(Episode(leaf, reward=float(outcome), stop=StopReason.DONE, turns=2, tokens_sampled=20))
    return t


def tasks(solved: int, of: int, prefix: str = "task") -> list[Trajectory]:
    """`of` tasks with one episode each, of which the first `solved` are solved."""
    return [task(f"{prefix}-{n:03d}", n < solved) for n in range(of)]


def counted(solved: int, of: int = 40, **others: list[Trajectory]) -> Measured:
    return measured({"shop": tasks(solved, of), **others})


def lost(**values: list[float]) -> Losses:
    """Losses with one number per item; names with spaces or capitals are given as a dictionary's keys."""
    units = {"general": "share", "benign refused": "share", "harmful refused": "share"}
    better = {"general", "harmful refused", "diversity", "distinct-2"}
    assert values.keys() <= NOUNS.keys()
    return Losses(
        {
            name: Figure({f"i{n}": (v,) for n, v in enumerate(row)}, "mean", units.get(name, ""), name in better)
            for name, row in values.items()
        }
    )


def report(before: int, after: int, *, of: int = 40, **settings: Any) -> Report:
    return build_report(counted(before, of), counted(after, of), **settings)
