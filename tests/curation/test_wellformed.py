"""curation/wellformed: which rule an episode breaks."""

import json
import logging

import pytest

from etude import curation
from etude.curation.base import problem
from etude.trajectory import Boundary, Episode, Failure, Message, StopReason, ToolCall, Trajectory
from etude.trajectory.formats import import_file

SEARCH = {
    "name": "search",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
ASK, END = Message("user", "go"), Message("assistant", "done")


def call(name: str = "search", content: str = "", **arguments) -> Message:
    return Message("assistant", content, (ToolCall(name, arguments or {"query": "x"}, "c"),))


def said(*messages: Message, **episode) -> Trajectory:
    t, leaf = Trajectory("t", "t", tools=[SEARCH]), None
    for message in messages:
        leaf = t.add(message, leaf)
    t.episodes = [Episode(leaf or 0, **episode)]
    return t


FOUND = Message("tool", "y", tool_call_id="c")
BROKEN = [
    ((ASK, call("serach"), FOUND, END), "structure: message 1: call to 'serach', which is not offered"),
    ((ASK, call(query=3), FOUND, END), "arguments: message 1, search: 3 is not of type 'string'"),
    ((ASK, call(q="x"), FOUND, END), "arguments: message 1, search: "),
    ((ASK, call(query="x", more=1), FOUND, END), "arguments: message 1, search: Additional properties"),
    ((ASK, FOUND, END), "structure: message 1: tool result 'c' without a call"),
    ((ASK, call(), FOUND), "ending: the last message is not an answer"),
    ((ASK, call()), "ending: the last message is not an answer"),
    ((ASK, ASK, END), "roles: message 1 is of role 'user' like the one before it"),
    ((ASK, END, END), "roles: message 2 is of role 'assistant' like the one before it"),
]


@pytest.mark.exact(7, 46)
@pytest.mark.parametrize(("messages", "why"), BROKEN, ids=[why for _, why in BROKEN])
def test_a_broken_rule_is_named(messages, why, caplog):
    t = said(*messages)
    assert problem(t, t.episodes[0]).startswith(why)
    with caplog.at_level(logging.INFO, "etude.curation"):
        assert curation.wellformed([t]) == []
    assert f"rejected t, episode 0: {why}" in caplog.text
    assert f"rejected 1 episodes (1 {why.partition(':')[0]})" in caplog.text


def test_an_answer_that_a_limit_cut_is_none():
    t = said(ASK, call(), FOUND, END, stop=StopReason.TOKENS)
    assert problem(t, t.episodes[0]) == "ending: the token limit cut the last answer"


def test_what_is_well_formed_stays():
    good = said(ASK, call(), FOUND, END)
    assert curation.wellformed([good]) == [good]


def test_thoughts_and_error_results_on_demand():
    silent, spoken = said(ASK, call(), FOUND, END), said(ASK, call(content="I look."), FOUND, END)
    assert curation.wellformed([silent, spoken], thoughts=True) == [spoken]
    wrong = said(ASK, call(), Message("tool", "error: no such thing", tool_call_id="c"), END)
    assert curation.wellformed([wrong]) == [wrong]
    assert curation.wellformed([wrong], errors=True) == []


def test_failures_and_malformed_calls_are_rejected():
    failed = said(ASK, END, failure=Failure(Boundary.TOOL, "gone"))
    assert problem(failed, failed.episodes[0]) == "failed: tool, gone"
    malformed = said(ASK, Message("assistant", "<tool_call>{"), ASK, END)
    malformed.nodes[1].scores["malformed"] = 1.0
    assert problem(malformed, malformed.episodes[0]).startswith("malformed call")


def test_the_good_episode_of_a_tree_stays(group):
    t = group("q", 1.0, 1.0)
    t.add(Message("user", "and?"), 1)
    t.episodes[0].leaf = 3
    (kept,) = curation.wellformed([t])
    assert [e.seed for e in kept.episodes] == [1]


@pytest.mark.exact(46)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"steps": [{"thought": "x", "tool_calls": [{"name": "fly"}]}]}, "call to 'fly', which is not offered"),
        ({"steps": [{"tool_calls": []}]}, "steps[0]: missing key 'thought'"),
        ({"steps": [{"thought": "x", "tool_calls": [{"name": "search", "arguments": [1]}]}]}, "a list, not an object"),
        ({"steps": []}, None),
    ],
)
def test_bad_records_are_in_the_quarantine_with_a_reason(tmp_path, change, why):
    row = {"trajectory_id": "a", "task_instruction": "", "tools": [SEARCH], "query": "go", "steps": []}
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    imported = import_file(tmp_path / "log.jsonl", "actionstudio")
    assert len(imported.trajectories) + len(imported.quarantined) == 2  # none is lost
    assert [q.line for q in imported.quarantined] == ([] if why is None else [2])
    assert all(why in q.reason for q in imported.quarantined)
