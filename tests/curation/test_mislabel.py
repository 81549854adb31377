"""curation/mislabel: wrong arguments for a share of the calls."""

import pytest

from etude import curation
from etude.core.errors import RecipeError
from etude.trajectory import Episode, Message, ToolCall, Trajectory


def calling(n: int) -> Trajectory:
    t = Trajectory(f"t{n}", f"t{n}")
    leaf = t.add(Message("user", f"get {n}"), None)
    t.episodes = [Episode(t.add(Message("assistant", "", (ToolCall("get", {"id": f"A{n}"}, "1"),)), leaf))]
    return t


def changed(before: list[Trajectory], after: list[Trajectory]) -> int:
    return sum(a.messages != b.messages for a, b in zip(before, after, strict=True))


def test_a_share_of_the_calls_gets_the_argument_of_another():
    data = [calling(n) for n in range(400)]
    noisy = curation.mislabel(data, share=0.25, seed=3)
    assert 70 <= changed(data, noisy) <= 130  # 100 expected, standard deviation 8.7
    assert [t.id for t in noisy] == [t.id for t in data]
    for clean, one in zip(data, noisy, strict=True):
        value = one.messages[1].tool_calls[0].arguments["id"]
        assert value in {f"A{n}" for n in range(400)}
        assert one.messages[0] == clean.messages[0]
    assert changed(noisy, curation.mislabel(data, share=0.25, seed=3)) == 0
    assert changed(noisy, curation.mislabel(data, share=0.25, seed=4)) > 0


def test_ends_and_edges(dialogue):
    data = [calling(n) for n in range(20)]
    assert curation.mislabel(data, share=0.0) == data
    assert changed(data, curation.mislabel(data, share=1.0)) == 20
    assert curation.mislabel([dialogue("one")], share=1.0)[0].nodes[0].ids_T is not None  # no other value to take
    with pytest.raises(RecipeError, match=r"share=1.5 is not a share"):
        curation.mislabel(data, share=1.5)


def test_a_changed_dialogue_is_to_be_rendered_again(dialogue):
    one, two = dialogue("one"), dialogue("two")
    two.messages[2] = Message("assistant", "Let me look.", (ToolCall("weather", {"city": "Rome"}, "1"),))
    noisy = curation.mislabel([one, two], share=1.0)
    assert noisy[0].messages[2].tool_calls[0].arguments == {"city": "Rome"}
    assert all(node.ids_T is None for node in noisy[0].nodes)
    assert one.messages[2].tool_calls[0].arguments == {"city": "Oslo"}
