"""curation/shuffle_tools: the same dialogues behind another order of the tools."""

from etude import curation
from etude.trajectory import Episode, Message, Trajectory

TOOLS = [{"name": name, "parameters": {"type": "object", "properties": {}}} for name in "abcdef"]


def offered(name: str, tools=TOOLS) -> Trajectory:
    t = Trajectory(name, name, tools=list(tools))
    t.episodes = [Episode(t.add(Message("assistant", "ok"), t.add(Message("user", "go"), None)), reward=1.0)]
    return t


def test_copies_have_other_orders_and_no_tokens(dialogue):
    filled = dialogue("x")
    filled.tools = list(TOOLS)
    made = curation.shuffle_tools([filled, offered("b")], copies=2, seed=1)
    assert [t.id for t in made] == ["x", "b", "x~1", "b~1", "x~2", "b~2"]
    assert made[0] is filled
    for copy in made[2:]:
        assert sorted(t["name"] for t in copy.tools) == list("abcdef")
        assert all(node.ids_T is None for node in copy.nodes)
        copy.check()
    assert len({tuple(t["name"] for t in copy.tools) for copy in made}) >= 4
    assert filled.nodes[0].ids_T is not None
    assert made[2].messages == filled.messages


def test_one_tool_has_one_order_and_the_seed_sets_the_others():
    assert [t.id for t in curation.shuffle_tools([offered("a", TOOLS[:1])])] == ["a"]
    first, again, other = (curation.shuffle_tools([offered("a")], keep=False, seed=seed)[0].tools for seed in (1, 1, 2))
    assert first == again != other
