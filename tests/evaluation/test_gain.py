import pytest

from etude.core.errors import EtudeError
from etude.evaluation.gain import attempt_sizes, measured, paired_tasks, solved
from etude.trajectory import Boundary, Episode, Failure, Message, Trajectory


def trajectory(task, *rewards, turns=2, tokens=10):
    """One episode per reward; a boundary instead of a reward is a failure there."""
    t = Trajectory(id=f"t-{task}", task=task)
    leaf = t.add(Message("user", "go"), None)
    for reward in rewards:
        failure = Failure(reward, "broke") if isinstance(reward, Boundary) else None
        t.episodes.append(
            Episode(leaf, reward=None if failure else reward, failure=failure, turns=turns, tokens_sampled=tokens)
        )
    return t


def test_success_needs_the_threshold():
    assert solved(Episode(0, reward=1.0)) is True
    assert solved(Episode(0, reward=0.99)) is False
    assert solved(Episode(0, reward=0.5), threshold=0.5) is True
    assert solved(Episode(0, reward=0.1 + 0.2), threshold=0.3) is True
    assert solved(Episode(0, reward=None)) is None


@pytest.mark.parametrize("boundary", list(Boundary))
def test_a_broken_test_is_left_out_and_a_broken_agent_did_not_solve(boundary):
    expected = None if boundary in (Boundary.ENVIRONMENT, Boundary.TOOL, Boundary.SCORER) else False
    assert solved(Episode(0, failure=Failure(boundary, "x"))) is expected


def test_counts_by_task_and_by_boundary():
    got = measured(
        {
            "shop": [
                trajectory("a", 1.0, 0.0, 1.0, 1.0, turns=3),
                trajectory("b", Boundary.TOOL, 0.0, Boundary.TIME),
                trajectory("c", Boundary.ENVIRONMENT, None),
            ]
        },
        floor={"shop": 0.1},
    ).sets["shop"]
    assert got.attempts == {"a": (3, 4), "b": (0, 2), "c": (0, 0)}
    assert got.failures == {"tool": 1, "time": 1, "environment": 1, "unrewarded": 1}
    assert (got.episodes, got.floor) == (9, 0.1)
    assert got.turns == {"a": 3.0, "b": 2.0}
    figures = got.figures(["a", "b"], k=[2])
    assert figures["success"].value == pytest.approx((3 / 4 + 0) / 2)
    assert figures["pass@2"].items == {"a": (1.0,), "b": (0.0,)}  # one failure in four: any two hold a success
    assert figures["turns"].value == 2.5
    assert got.figures(["a", "b", "c"])["success"].items == figures["success"].items  # nothing is known of c
    assert figures["tokens"].higher_is_better is False


def test_trajectories_of_one_task_are_put_together():
    got = measured({"s": [trajectory("a", 1.0), trajectory("a", 0.0)]}).sets["s"]
    assert got.attempts == {"a": (1, 2)}


def test_a_task_that_one_side_never_tried_is_named():
    before = measured({"s": [trajectory("a", 1.0), trajectory("b", 1.0)]}).sets["s"]
    after = measured({"s": [trajectory("a", 1.0)]}).sets["s"]
    with pytest.raises(EtudeError, match="task set 's': task 'b' was not tried after"):
        paired_tasks("s", before, after)
    with pytest.raises(EtudeError, match="task 'b' was not tried before"):
        paired_tasks("s", after, before)


def test_a_task_without_a_counted_episode_is_left_out_of_the_pairs():
    before = measured({"s": [trajectory("a", 1.0), trajectory("b", Boundary.SCORER)]}).sets["s"]
    after = measured({"s": [trajectory("a", 1.0), trajectory("b", 1.0)]}).sets["s"]
    assert paired_tasks("s", before, after) == ["a"]
    broken = measured({"s": [trajectory("a", Boundary.SCORER), trajectory("b", 1.0)]}).sets["s"]
    with pytest.raises(EtudeError, match="no task has a counted episode both before and after"):
        paired_tasks("s", before, broken)


def test_an_empty_set_is_refused():
    with pytest.raises(EtudeError, match="task set 'empty' holds no trajectories"):
        measured({"empty": []})


@pytest.mark.parametrize(("n", "sizes"), [(1, []), (2, [2]), (3, [2]), (4, [2, 4]), (8, [2, 4, 8]), (9, [2, 4, 8])])
def test_pass_at_k_only_as_far_as_every_task_has_attempts(n, sizes):
    many = measured({"s": [trajectory("a", *[1.0] * 16), trajectory("b", *[0.0] * n)]}).sets["s"]
    assert attempt_sizes(["a", "b"], many, many) == sizes


def test_a_world_with_references_has_normalised_scores(monkeypatch):
    references = {"nim": {"random": 0.25, "oracle": 0.75}, "town": {"random": 0.0, "oracle": 1.0}}
    monkeypatch.setattr("etude.evaluation.gain.known", lambda world: references if world == "games" else {})

    def played(name, domain, *rewards, world="games"):
        t = Trajectory(id=name, task=name, environment=world, meta={"domain": domain})
        leaf = t.add(Message("user", "play"), None)
        t.episodes = [Episode(leaf, reward=reward) for reward in rewards]
        return t

    games = [played("a", "nim", 0.75, 0.25), played("b", "nim", 0.0), played("c", "town", 0.4)]
    figures = measured({"games": games}).sets["games"].figures(["a", "b", "c"])
    assert figures["normalised score"].items == {"a": (50.0,), "b": (-50.0,), "c": (40.0,)}
    for other in (played("d", "chess", 1.0), played("d", "nim", 1.0, world="elsewhere")):
        mixed = measured({"games": [*games, other]}).sets["games"].figures(["a", "b", "c", "d"])
        assert "normalised score" not in mixed, "a mean over some of the tasks would not say so"
