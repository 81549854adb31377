"""curation/critical: which steps carry the loss."""

import asyncio
import math

import numpy as np
import pytest
import torch

from etude import curation
from etude.agents.loops import native
from etude.core.errors import RecipeError
from etude.environments import desk
from etude.environments.desk import load_domains
from etude.policies import scripted
from etude.rollout.branch import branch
from etude.rollout.collect import collect
from etude.trajectory import Episode, Message, ToolCall, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
from .test_steps import gradient, talk, weighted

WORLD = desk(difficulty="2-4")
TASKS = {task.id: task for task in WORLD.tasks("train")[:8]}


def played():
    """Experts' episodes without tokens: desks need a larger vocabulary than the test's."""
    said = scripted({t.id: WORLD.solve(t, 0) for t in TASKS.values()})
    return asyncio.run(collect(said, list(TASKS.values()), agent=native(), max_turns=99))


def numbered(trajectories):
    """One token per message, so that what is trained can be read off."""
    for t in trajectories:
        for i, node in enumerate(t.nodes):
            answer = t.messages[node.message].role == "assistant"
            node.ids_T, node.sampled_T = np.array([i], np.int32), np.array([answer])
    return trajectories


def trained(t: Trajectory) -> list[int]:
    """Which answers are trained, from 0."""
    nodes = [n for n in t.nodes if t.messages[n.message].role == "assistant"]
    return [k for k, node in enumerate(nodes) if node.sampled_T is not None and node.sampled_T.any()]


@pytest.mark.exact(45)
def test_the_counterfactual_finds_every_planted_decisive_step():
    """A desk's decisive steps are the calls that write; searches, readings and the last words change nothing."""
    origins = numbered(played())
    made = asyncio.run(branch(None, origins, TASKS, agent=native()))
    kept = {t.id: trained(t) for t in curation.critical([*origins, *made], by="counterfactual", rho=0.99)}
    for origin in origins:
        tools = [name for name, row in _tools(origin).items() if row["op"] not in ("find", "get")]
        said = [m for m in origin.messages if m.role == "assistant"]
        assert kept[origin.id] == [k for k, m in enumerate(said) if any(c.name in tools for c in m.tool_calls)]


def _tools(t: Trajectory):
    return load_domains()[t.meta["domain"]].tools


@pytest.mark.exact(45)
@pytest.mark.parametrize("by", ["rules", "random", "first"])
@pytest.mark.parametrize("rho", [0.2, 0.3, 0.5, 1.0])
def test_no_more_than_the_share_is_chosen(by, rho):
    before = numbered(played())
    for t in curation.critical(before, by=by, rho=rho):
        answers = sum(m.role == "assistant" for m in t.messages)
        assert 0 < len(trained(t)) <= math.ceil(rho * answers)
        assert rho < 1 or len(trained(t)) == answers


@pytest.mark.exact(45)
def test_with_all_steps_it_is_supervised_fine_tuning_and_without_a_step_its_tokens_have_no_gradient(policy):  # noqa: F811
    def data():
        return [talk("a", 4, policy.renderer.fill), talk("b", 3, policy.renderer.fill)]

    whole = gradient(policy, data(), "token")
    assert (gradient(policy, curation.critical(data(), rho=1.0), "token") == whole).all()
    some = gradient(policy, curation.critical(data(), by="first", rho=0.3), "token")
    assert (some != whole).any()
    # the loss of the chosen steps is the mean over their tokens, as if the others had never been answers
    alone = [t for t in curation.steps(data()) if t.id in ("a:1", "a:2", "b:1")]
    torch.testing.assert_close(torch.tensor(some), torch.tensor(gradient(policy, alone, "token")), atol=1e-6, rtol=0)
    weighed = weighted(curation.critical(data(), by="first", rho=0.3))
    untrained = [n for t in weighed for n in t.nodes if n.weight_T is None]
    assert len(untrained) == 2 + 7 + 4  # systems, users, and the answers that were not chosen


def test_the_rules_by_hand():
    t = Trajectory("t", "t")
    said = [
        Message("user", "Move Ann's booking."),
        Message("assistant", "", (ToolCall("find", {"name": "Ann"}),)),  # plan, and it finds B-7
        Message("tool", '["B-7"]'),
        Message("assistant", "", (ToolCall("chat", {"text": "hello"}),)),
        Message("tool", "hello"),
        Message("assistant", "", (ToolCall("move", {"id": "B-77"}),)),
        Message("tool", "error: no B-77"),
        Message("assistant", "", (ToolCall("move", {"id": "B-7"}),)),  # corrects, and is the last call
        Message("tool", "ok"),
        Message("assistant", "Moved."),
    ]
    leaf = None
    for message in said:
        leaf = t.add(message, leaf)
    t.episodes = [Episode(leaf, reward=1.0)]
    (kept,) = curation.critical(numbered([t]), rho=0.4)
    assert trained(kept) == [0, 3]
    (kept,) = curation.critical(numbered([t]), rho=0.9)
    assert trained(kept) == [0, 3]  # nothing else meets a criterion


def test_what_it_needs_is_said():
    with pytest.raises(RecipeError, match=r"rho=0 is no share"):
        curation.critical([], rho=0)
    with pytest.raises(RecipeError, match=r"without its answer 1; before this stage put  - branch: \{by: expert\}"):
        curation.critical(numbered(played()), by="counterfactual")
