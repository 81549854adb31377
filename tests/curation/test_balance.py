"""curation/balance: solved episodes in the proportions of all tasks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude import curation
from etude.agents.loops import native
from etude.core.errors import RecipeError
from etude.environments import desk
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Episode, Message, Trajectory
from etude.trajectory.store import Store


def tried(name: str, difficulty: float, reward: float | None) -> Trajectory:
    t = Trajectory(name, f"task-{name.split('/')[0]}", meta={"difficulty": difficulty})
    t.episodes = [Episode(t.add(Message("assistant", "x"), t.add(Message("user", name), None)), reward=reward)]
    return t


def teacher(easy: int = 10, hard: int = 10) -> list[Trajectory]:
    """Solves every easy task, and of the hard ones only the first."""
    return [tried(f"e{n}", 1.0, 1.0) for n in range(easy)] + [tried(f"h{n}", 2.0, float(n == 0)) for n in range(hard)]


def histogram(trajectories) -> Counter:
    return Counter(t.meta["difficulty"] for t in trajectories)


@pytest.mark.exact(54)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 200), st.integers(0, 3))
def test_each_bin_has_its_share_to_within_one_episode(counts, size, seed):
    tasks = [tried(f"d{d}n{n}", float(d), float(n == 0)) for d, count in enumerate(counts) for n in range(count)]
    drawn = histogram(curation.balance(tasks, size=size, seed=seed))
    assert drawn.total() == size
    for d, count in enumerate(counts):
        assert abs(drawn[float(d)] - size * count / sum(counts)) < 1


@pytest.mark.exact(54)
def test_the_success_filter_is_skewed_to_easy_and_answers_with_search_are_not():
    tasks = teacher()
    forced = [tried(f"h{n}/forced", 2.0, 1.0) for n in range(10)]
    assert histogram(curation.success(tasks)) == {1.0: 10, 2.0: 1}
    balanced = curation.balance([*tasks, *forced])
    assert histogram(balanced) == {1.0: 10, 2.0: 10}
    assert all(t.episodes[0].reward == 1.0 for t in balanced)
    assert len({t.id for t in balanced}) == 20  # nothing had to be used twice


def test_scarce_episodes_are_used_again_under_other_ids():
    drawn = curation.balance(teacher(), size=8)
    assert histogram(drawn) == {1.0: 4, 2.0: 4}
    assert sorted(t.id for t in drawn if t.meta["difficulty"] == 2.0) == ["h0", "h0#2", "h0#3", "h0#4"]


def test_a_bin_that_nobody_solved_is_named():
    with pytest.raises(RecipeError, match=r"none of 3 tasks with difficulty=2.0 is solved; add an expert's"):
        curation.balance([tried("e", 1.0, 1.0), *(tried(f"h{n}", 2.0, 0.0) for n in range(3))])


@pytest.mark.exact(54)
async def test_every_stored_trajectory_replays_to_success(tmp_path):
    """What the desk's search annotates, once more from the store into a fresh world."""
    world, store = desk(difficulty="1-4"), Store(tmp_path)
    tasks = world.tasks("train")[:24]
    made = [
        t for task in tasks for t in await collect(scripted(world.solve(task, 0)), [task], agent=native(), max_turns=9)
    ]
    store.write(curation.balance(made), "bank")
    kept, by_id = list(store.read()), {task.id: task for task in tasks}
    assert len(kept) == 24
    assert histogram(kept) == Counter(task.difficulty for task in tasks)
    for trajectory in kept:
        session = world.open()
        await session.reset(by_id[trajectory.task], seed=0)
        reward = None
        for message in trajectory.dialogue(trajectory.episodes[0].leaf):
            if message.role == "assistant":
                reward = (await session.step(message)).reward
        assert reward == 1.0


@pytest.mark.exact(54)
@pytest.mark.parametrize("eta", [0.5, 0.8])
def test_the_mixture_with_general_chat_hits_its_target(eta):
    general = [tried(f"g{n}", 0.0, None) for n in range(7)]
    mixed = curation.mix(curation.balance(teacher()), general, eta=eta, size=50)
    assert sum(t.id[0] != "g" for t in mixed) == eta * 50
