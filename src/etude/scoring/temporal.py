"""Formal specifications of how an episode goes: the share of temporal formulas that it satisfies.

Yang et al. 2023, "Fine-Tuning Language Models Using Formal Methods Feedback", arXiv:2310.18239: what was played is
ranked by the number of specifications that it satisfies.
LTLf: De Giacomo & Vardi 2013, "Linear Temporal Logic and Linear Dynamic Logic on Finite Traces", IJCAI.
Progression: Bacchus & Kabanza 1998, "Planning for Temporally Extended Goals". Reading a step turns a formula into what
the rest of the trace must satisfy; f' is f after the step:
    X f -> f and "there is a rest"    f U g -> g' or (f' and f U g)    G f -> f' and G f
Departures: one played trace is checked, as in the paper's empirical feedback; no model of the world is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from etude.core.errors import PartError, ScoreError
from etude.core.parts import part
from etude.scoring.base import place, steps
from etude.trajectory import Episode, Trajectory

Formula = tuple[Any, ...]
TRUE: Formula = ("true",)
FALSE: Formula = ("false",)
MORE: Formula = ("F", TRUE)  # at least one more step
END: Formula = ("G", FALSE)  # no more step
UNARY = ("!", "X", "N", "F", "G")
BINARY = (("->",), ("|",), ("&",), ("U", "R"))  # loosest first
TOKEN = re.compile(r"\s*(->|[()!&|]|[A-Za-z_](?:[\w:.]|-(?!>))*)")
ATOM = re.compile(r"(called|result|said):.+|called|error|answered")


@part
@dataclass
class temporal:
    """Satisfied specifications / specifications.

    A step is a turn of the agent with the results that it got. Of it, these propositions may hold: `called` and
    `called:NAME` (a tool was called), `answered` (it ended without a call, or called a tool `answer`), `error` (a call
    could not be read, or a result says so), `said:WORD` and `result:WORD` (the word is in the turn, or in a result).

    Formulas are made of them with `true`, `false`, `!`, `&`, `|`, `->`, `X` (in the next step, which there must be),
    `N` (in the next step, if there is one), `F` (in some step from now on), `G` (in all of them), `U` (until, which
    must come) and `R` (release), as in `G(called:refund -> X F answered)`.

    Each formula that is violated is a score `violated:FORMULA`: the step, from 1, at which nothing could save it any
    more. The score `temporal` of a turn's node is the share of formulas that are not violated yet.
    Raises PartError for text that is no formula.
    """

    specifications: Sequence[str]
    """Formulas; each must hold of the whole episode."""
    errors: str = r"(?i)\W*error\b"
    """Regular expression that the beginning of a result matches if it reports an error."""

    range = (0.0, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.specifications, str) or not self.specifications:
            raise PartError(f"scoring/temporal: specifications is {self.specifications!r}; give a list of formulas")
        self.formulas = {text: parse(text) for text in self.specifications}

    async def __call__(self, trajectory: Trajectory, episode: Episode) -> float:
        """Raises ScoreError for an episode without turns."""
        turns = steps(trajectory, episode)
        if not turns:
            raise ScoreError(f"{place(trajectory, episode)}: the agent said nothing, so there is no trace to check")
        trace = list(self._trace(trajectory, episode))
        ends = {text: violation(formula, trace) for text, formula in self.formulas.items()}
        for step, (n, _) in enumerate(turns, 1):
            alive = [end is None or end > step for end in ends.values()]
            trajectory.nodes[n].scores["temporal"] = sum(alive) / len(alive)
        episode.scores |= {f"violated:{text}": float(end) for text, end in ends.items() if end is not None}
        return sum(end is None for end in ends.values()) / len(ends)

    def _trace(self, trajectory: Trajectory, episode: Episode) -> Iterator[set[str]]:
        """The propositions that hold of each turn."""
        for n, after in steps(trajectory, episode):
            node = trajectory.nodes[n]
            said, results = trajectory.messages[node.message], [m.content for m in after if m.role != "system"]
            names = [call.name for call in said.tool_calls]
            malformed = "malformed" in node.scores
            now = {"called", *(f"called:{name}" for name in names)} if names else set()
            now |= {f"said:{word}" for word in re.findall(r"\w+", said.content.lower())}
            now |= {f"result:{word}" for text in results for word in re.findall(r"\w+", text.lower())}
            if "answer" in names or not (names or malformed):
                now.add("answered")
            if malformed or any(re.match(self.errors, text) for text in results):
                now.add("error")
            yield now


# -- formulas ------------------------------------------------------------------------------------------------------


def parse(text: str) -> Formula:
    """The formula that a text means. Raises PartError with the place where it is none.

    >>> parse("G !called:refund")
    ('G', ('not', ('atom', 'called:refund')))
    """
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if match is None:
            raise _error(text, f"{text[at:].strip()[0]!r} begins no operator or proposition")
        tokens.append(match[1])
        at = match.end()
    formula, rest = _binary(text, tokens, 0)
    if rest:
        raise _error(text, f"{rest[0]!r} is left over")
    return formula


def _binary(text: str, tokens: list[str], level: int) -> tuple[Formula, list[str]]:
    """The formula that the tokens begin with, of operators no looser than the level's, and the tokens after it."""
    if level == len(BINARY):
        return _unary(text, tokens)
    left, rest = _binary(text, tokens, level + 1)
    if not rest or rest[0] not in BINARY[level]:
        return left, rest
    right, after = _binary(text, rest[1:], level)  # right-associative
    match rest[0]:
        case "->":
            return disjunction(negation(left), right), after
        case "|":
            return disjunction(left, right), after
        case "&":
            return conjunction(left, right), after
        case operator:
            return (operator, left, right), after


def _unary(text: str, tokens: list[str]) -> tuple[Formula, list[str]]:
    if not tokens:
        raise _error(text, "it ends where a proposition is missing")
    head, rest = tokens[0], tokens[1:]
    if head in UNARY:
        inner, rest = _unary(text, rest)
        return (negation(inner) if head == "!" else (head, inner)), rest
    if head == "(":
        inner, rest = _binary(text, rest, 0)
        if not rest or rest[0] != ")":
            raise _error(text, "a ')' is missing")
        return inner, rest[1:]
    if head in ("true", "false"):
        return (head,), rest
    if not ATOM.fullmatch(head):
        raise _error(text, f"{head!r} is no proposition")
    return ("atom", head.lower() if head.startswith(("said:", "result:")) else head), rest


def _error(text: str, problem: str) -> PartError:
    there = "called, called:NAME, answered, error, said:WORD, result:WORD; operators: ! & | -> X N F G U R"
    return PartError(f"scoring/temporal: formula {text!r}: {problem}\nThere are: {there}")


def negation(f: Formula) -> Formula:
    if f in (TRUE, FALSE):
        return FALSE if f == TRUE else TRUE
    return f[1] if f[0] == "not" else ("not", f)


def conjunction(*formulas: Formula) -> Formula:
    parts = {p for f in formulas for p in (f[1] if f[0] == "and" else (f,))} - {TRUE}
    if FALSE in parts or any(negation(p) in parts for p in parts):
        return FALSE
    return ("and", frozenset(parts)) if len(parts) > 1 else next(iter(parts), TRUE)


def disjunction(*formulas: Formula) -> Formula:
    parts = {p for f in formulas for p in (f[1] if f[0] == "or" else (f,))} - {FALSE}
    if TRUE in parts or any(negation(p) in parts for p in parts):
        return TRUE
    return ("or", frozenset(parts)) if len(parts) > 1 else next(iter(parts), FALSE)


def progress(f: Formula, now: set[str]) -> Formula:
    """What the steps after this one must satisfy, so that the trace from this one on satisfies `f`."""
    match f:
        case ("atom", name):
            return TRUE if name in now else FALSE
        case ("not", a):
            return negation(progress(a, now))
        case ("and", parts):
            return conjunction(*(progress(p, now) for p in parts))
        case ("or", parts):
            return disjunction(*(progress(p, now) for p in parts))
        case ("X", a):
            return conjunction(a, MORE)
        case ("N", a):
            return disjunction(a, END)
        case ("F", a):
            return disjunction(progress(a, now), f)
        case ("G", a):
            return conjunction(progress(a, now), f)
        case ("U", a, b):
            return disjunction(progress(b, now), conjunction(progress(a, now), f))
        case ("R", a, b):
            return conjunction(progress(b, now), disjunction(progress(a, now), f))
    return f  # true and false


def at_end(f: Formula) -> bool:
    """Whether the empty trace satisfies what is left of a formula."""
    match f:
        case ("not", a):
            return not at_end(a)
        case ("and", parts):
            return all(map(at_end, parts))
        case ("or", parts):
            return any(map(at_end, parts))
    return f[0] in ("true", "N", "G", "R")


def violation(f: Formula, trace: Sequence[set[str]]) -> int | None:
    """The step, from 1, at which the formula was violated; None where the trace satisfies it.

    What is still open at the end is violated at the last step, and so is what only a search could have told before.
    """
    for step, now in enumerate(trace, 1):
        f = progress(f, now)
        if f == FALSE:
            return step
    return None if at_end(f) else len(trace)
