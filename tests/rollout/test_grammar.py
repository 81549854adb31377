"""Grammars: of the calls of a tool set, and what a steered answer means for training."""

import numpy as np
import pytest

from etude.agents.loops import native
from etude.core.errors import RenderingError
from etude.curation.preflight import preflight
from etude.protocols import Grammar, Sampling
from etude.rendering.notations import calls_grammar, parse
from etude.rollout.collect import collect
from etude.training.learner import rows

from ..engine_fixtures import GET, Talk, make_tokenizer

pytest.importorskip("llguidance")
PUT = {
    "name": "put",
    "parameters": {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}, "ok": {"type": "boolean"}}},
}
STOP = 2


@pytest.fixture(scope="module")
def matchers():
    from etude.rollout.grammar import Matchers

    tokenizer = make_tokenizer()
    return Matchers(tokenizer, {STOP}, len(tokenizer) + 10)


def accepts(matchers, grammar: Grammar, text: str) -> bool:
    matcher = matchers(grammar)
    for token in [*matchers.tokenizer.encode(text), STOP]:
        if not matcher.allowed()[token]:
            return False
        matcher.advance(token)
    return True


GOOD = '<tool_call>{"name": "get", "arguments": {"id": "x </tool_call> y"}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("1 < 2, and <tool", True),
        (GOOD, True),
        (f"I look.\n{GOOD}\n{GOOD.replace('{', ' { ', 1)} and wait", True),
        ('<tool_call>\n{"name": "put", "arguments": {"n": 2}}\n</tool_call>', True),
        ('<tool_call>{"name": "got", "arguments": {"id": "x"}}</tool_call>', False),
        ('<tool_call>{"name": "get", "arguments": {}}</tool_call>', False),
        ('<tool_call>{"name": "get", "arguments": {"id": "x", "more": 1}}</tool_call>', False),
        ('<tool_call>{"name": "put", "arguments": {"n": 4}}</tool_call>', False),
        ('<tool_call>{"name": "get", "arguments": {"id": "x"}}', False),
        ("<tool_call>get</tool_call>", False),
        ("<tool_call>{" + 9 * " " + '"name": "get", "arguments": {"id": "x"}}</tool_call>', False),
    ],
)
def test_what_the_grammar_of_calls_lets_through(matchers, text, good):
    assert accepts(matchers, Grammar("lark", calls_grammar([GET, PUT])), text) is good
    if good:
        assert parse(text)[1] == ""


def test_whatever_is_drawn_under_the_grammar_of_calls_can_be_read(matchers):
    rng, decode, called = np.random.default_rng(0), matchers.tokenizer.decode, 0
    for _ in range(30):
        matcher, ids = matchers(Grammar("lark", calls_grammar([GET, PUT]))), []
        opening = matchers.tokenizer.encode("hm <tool_call>")
        while not ids or ids[-1] != STOP:
            allowed_V = matcher.allowed()
            closing = allowed_V & np.isin(np.arange(len(allowed_V)), [*matchers.tokenizer.encode('"}<STOP'), STOP])
            choice_V = closing if len(ids) > 40 and closing.any() else allowed_V
            ids.append(opening[len(ids)] if len(ids) < len(opening) else int(rng.choice(np.flatnonzero(choice_V))))
            assert allowed_V[ids[-1]]
            matcher.advance(ids[-1])
        message, problem = parse(decode(ids[:-1]))
        assert problem == ""
        assert {c.name for c in message.tool_calls} <= {"get", "put"}
        called += len(message.tool_calls)
    assert called >= 30


def test_other_notations_have_no_grammar_yet():
    with pytest.raises(RenderingError, match="'xml'"):
        calls_grammar([GET], "xml")


class Seen:
    """The generator of a policy, keeping the samplings it was asked for."""

    def __init__(self, policy):
        self.inner, self.samplings = policy.generator, []
        policy.generator = self

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def submit(self, prompt, sampling, seed):
        self.samplings.append(sampling)
        return await self.inner.submit(prompt, sampling, seed)


@pytest.mark.parametrize("tools", [(GET,), ()])
async def test_the_native_loop_asks_for_well_formed_calls_of_the_tools_at_hand(policy, tools):
    seen, world = Seen(policy), Talk(turns=2, tools=tools)
    (trajectory,) = await collect(
        policy, world.tasks("train", 1), agent=native(well_formed=True), sampling=Sampling(max_tokens=20)
    )
    assert trajectory.episodes[0].failure is None
    wanted = Grammar("lark", calls_grammar([GET])) if tools else None
    assert [s.grammar for s in seen.samplings] == [wanted] * trajectory.episodes[0].turns


async def test_what_a_grammar_chose_is_recorded_and_not_trained(policy):
    """The untrained model knows nothing of this text: the grammar writes all of it but the free word at the end."""
    sampling = Sampling(max_tokens=60, grammar=Grammar("regex", "the answer: (?s:.){0,9}"))
    made = await collect(policy, Talk().tasks("train", 4), agent=native(), sampling=sampling)
    assert all(t.episodes[0].failure is None for t in made)
    nodes = [node for t in made for node in t.nodes if node.sampled]
    said = sum(int(np.isfinite(node.logprob_T).sum()) for node in nodes)
    own = sum(int(node.sampled_T.sum()) for node in nodes)
    assert 0 < own < said - 4 * 5
    for trajectory in made:
        leaf = trajectory.episodes[0].leaf
        (theirs,) = await policy.logprobs([trajectory.ids_P(leaf)], [0])
        recorded_P = np.concatenate(
            [np.full(len(trajectory.nodes[n].ids_T), np.nan) if trajectory.nodes[n].logprob_T is None
             else trajectory.nodes[n].logprob_T for n in trajectory.path(leaf)]
        )  # fmt: skip
        there = np.isfinite(recorded_P)
        np.testing.assert_allclose(recorded_P[there], theirs[there], atol=1e-4)
        trajectory.weigh([1.0])
    assert sum(int(row.mask_P.sum()) for row in rows(made)) == own
    found = list(preflight(made, policy.renderer, reward_range=(0, 1)))
    assert ("steered", "warn") in [(f.code, f.severity) for f in found]
    assert not [f.code for f in found if f.code in ("stop_untrained", "no_generation_prompt", "text_differs", "drift")]


async def test_a_stop_token_that_a_grammar_chose_is_warned_of_and_not_refused(policy):
    made = await collect(policy, Talk().tasks("train", 4), agent=native(), sampling=Sampling(max_tokens=100))
    codes = lambda: {f.code for f in preflight(made, policy.renderer)}  # noqa: E731
    before = codes()
    for node in [node for t in made for node in t.nodes if node.sampled]:
        node.sampled_T[-1] = False  # as it is where the grammar is complete and nothing may follow
    assert codes() == before | {"steered"}
