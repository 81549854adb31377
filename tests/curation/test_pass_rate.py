"""curation/pass_rate: tasks of the right difficulty for this policy."""

import pytest

from etude.curation import pass_rate
from etude.trajectory import Boundary, Episode, Failure, Trajectory


def group(name, rewards):
    episodes = [
        Episode(0, failure=Failure(Boundary.MODEL, "x")) if r is None else Episode(0, reward=float(r)) for r in rewards
    ]
    return Trajectory(name, name, episodes=episodes)


GROUPS = [group("never", [0, 0]), group("half", [1, 0]), group("most", [1, 1, 1, 0]), group("always", [1, 1])]


@pytest.mark.exact(124)
def test_always_and_never_are_dropped():
    assert [t.id for t in pass_rate(GROUPS)] == ["half", "most"]


@pytest.mark.parametrize(
    ("above", "below", "kept"),
    [(-1, 1, ["never", "half", "most"]), (0, 0.75, ["half"]), (0.5, 2, ["most", "always"])],
)
def test_bounds(above, below, kept):
    assert [t.id for t in pass_rate(GROUPS, above=above, below=below)] == kept


def test_failed_episodes_do_not_count_and_rewards_have_a_threshold():
    assert pass_rate([group("a", [1, None]), group("b", [None])]) == []
    assert [t.id for t in pass_rate([group("a", [0.5, 0.4])], at_least=0.5)] == ["a"]
