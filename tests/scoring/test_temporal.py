"""scoring/temporal: progression against the semantics, by hand and at random."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import PartError, ScoreError
from etude.scoring.temporal import parse, temporal, violation
from etude.trajectory import Message, ToolCall

from .test_scoring import episode_of

NAMES = ("called", "error", "answered")


def text_of(formula):
    if isinstance(formula, str):
        return formula
    operator, *inner = formula
    inner = [text_of(f) for f in inner]
    return f"({inner[0]} {operator} {inner[1]})" if len(inner) == 2 else f"{operator} {inner[0]}"


def holds(formula, trace, i=0):
    """De Giacomo & Vardi's semantics, word for word; `formula` as nested tuples, `trace` with a step at i."""
    if isinstance(formula, str):
        return formula == "true" or formula in trace[i]
    operator, *f = formula
    later = range(i, len(trace))
    match operator:
        case "!":
            return not holds(f[0], trace, i)
        case "&":
            return holds(f[0], trace, i) and holds(f[1], trace, i)
        case "|":
            return holds(f[0], trace, i) or holds(f[1], trace, i)
        case "->":
            return not holds(f[0], trace, i) or holds(f[1], trace, i)
        case "X":
            return i + 1 < len(trace) and holds(f[0], trace, i + 1)
        case "N":
            return i + 1 == len(trace) or holds(f[0], trace, i + 1)
        case "F":
            return any(holds(f[0], trace, j) for j in later)
        case "G":
            return all(holds(f[0], trace, j) for j in later)
        case "U":
            return any(holds(f[1], trace, j) and all(holds(f[0], trace, k) for k in range(i, j)) for j in later)
        case "R":
            return all(holds(f[1], trace, j) or any(holds(f[0], trace, k) for k in range(i, j)) for j in later)


unary, binary = st.sampled_from("!XNFG"), st.sampled_from(["&", "|", "->", "U", "R"])
formulas = st.recursive(
    st.sampled_from([*NAMES, "true", "false"]),
    lambda inner: st.tuples(unary, inner) | st.tuples(binary, inner, inner),
    max_leaves=8,
)
traces = st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=6)


@given(formulas, traces)
def test_progression_agrees_with_the_semantics(formula, trace):
    assert (violation(parse(text_of(formula)), trace) is None) == holds(formula, trace)


@given(formulas, traces, traces)
def test_what_is_violated_before_the_end_stays_so_whatever_comes(formula, trace, other):
    step = violation(parse(text_of(formula)), trace)
    if step is not None and step < len(trace):
        assert not holds(formula, trace[:step] + other)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("called & error | answered", "(called & error) | answered"),
        ("called | error -> answered", "(called | error) -> answered"),
        ("called -> error -> answered", "called -> (error -> answered)"),
        ("called U error & answered", "(called U error) & answered"),
        ("! called U X error", "(!called) U (X error)"),
        ("G F called", "G(F(called))"),
        ("! ! called", "called"),
        ("F called", "F called  "),
    ],
)
def test_how_tightly_operators_bind(text, same):
    assert parse(text) == parse(same)
    assert parse("called -> error -> answered") != parse("(called -> error) -> answered")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it ends where a proposition is missing"),
        ("G (called", r"a '\)' is missing"),
        ("called error", "'error' is left over"),
        ("called & ", "it ends where"),
        ("caled", "'caled' is no proposition"),
        ("U called", "'U' is no proposition"),
        ("called % error", "'%' begins no operator"),
    ],
)
def test_what_is_no_formula(text, problem):
    with pytest.raises(PartError, match=problem):
        temporal([text])


def test_a_single_text_is_no_list_of_formulas():
    with pytest.raises(PartError, match="give a list of formulas"):
        temporal("called")
    with pytest.raises(PartError, match="give a list of formulas"):
        temporal([])


def call(name, text="", **arguments):
    return Message("assistant", text, (ToolCall(name, arguments),))


HAPPENED = (
    Message("user", "Refund it, error or not."),
    call("find-order", "Looking."),
    Message("tool", "order 3, paid"),
    call("refund"),
    Message("tool", "Error: not allowed"),
    Message("assistant", "Sorry, no refund."),
)


@pytest.mark.parametrize(
    ("text", "violated"),
    [
        ("called:find-order", None),
        ("called:find-order->X called:refund", None),
        ("X X answered", None),
        ("G !error", 2),
        ("G(called:refund -> X F answered)", None),
        ("G(called:refund -> X F called:refund)", 3),
        ("!called:refund U called:find-order", None),
        ("!called:find-order U called:refund", 1),
        ("F(result:paid & said:looking)", None),
        ("F result:refund", 3),
        ("F(error & said:paid)", 3),
        ("said:SORRY R called", 3),
        ("G(answered -> N false)", None),
        ("called U answered", None),
    ],
)
async def test_propositions_and_the_step_of_the_violation(text, violated):
    trajectory, episode = episode_of(*HAPPENED)
    assert await temporal([text])(trajectory, episode) == (violated is None)
    assert episode.scores == ({} if violated is None else {f"violated:{text}": violated})


async def test_the_score_is_the_share_of_satisfied_formulas_and_turns_carry_what_is_left():
    trajectory, episode = episode_of(*HAPPENED)
    assert await temporal(["G !error", "F answered", "F called:cancel", "called"])(trajectory, episode) == 0.5
    assert episode.scores == {"violated:G !error": 2, "violated:F called:cancel": 3}
    assert [node.scores.get("temporal") for node in trajectory.nodes] == [None, 1.0, None, 0.75, None, 0.5]


async def test_answered_and_error_have_other_signs():
    answer = call("answer", text="x")
    assert await temporal(["answered & called"])(*episode_of(answer)) == 1.0
    trajectory, episode = episode_of(Message("user", "?"), Message("assistant", "<tool_call>{"))
    trajectory.nodes[1].scores["malformed"] = 1.0
    assert await temporal(["error & !answered & !called"])(trajectory, episode) == 1.0
    told = episode_of(call("f"), Message("tool", "no tool 'f'"))
    assert await temporal(["error"])(*told) == 0.0
    assert await temporal(["error"], errors="no tool")(*told) == 1.0


async def test_no_turn_is_no_trace():
    with pytest.raises(ScoreError, match=r"t7.*no trace"):
        await temporal(["called"])(*episode_of(Message("user", "?")))
