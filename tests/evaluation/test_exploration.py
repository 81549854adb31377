"""evaluation/exploration: the three diagnostics, on players whose answer is known."""

import random

import numpy as np
import pytest

from etude.agents.loops import native
from etude.environments import bandit
from etude.environments.bandit import best, ucb
from etude.evaluation.exploration import coverage, doing, frequency_bias, knows, presses
from etude.policies import scripted
from etude.rollout.collect import collect


def play(choose, arms=4, steps=25, seed=0):
    """Histories of a player that chooses by its history, on arms that pay by chance."""
    rng = random.Random(seed)
    made = []
    for _ in range(20):
        means, history = [rng.random() for _ in range(arms)], []
        for _ in range(steps):
            arm = choose(history, arms)
            history.append((arm, float(rng.random() < means[arm])))
        made.append(history)
    return made


@pytest.mark.exact(5)
def test_ucb_does_what_it_knows_and_greedy_never():
    assert doing(play(lambda h, k: best(h, k, "ucb")[0]), 4) == 1.0
    assert doing(play(lambda h, k: best(h, k, "greedy")[0]), 4) == 0.0
    assert 0 < doing(play(lambda h, k: len(h) % k), 4) < 1
    assert np.isnan(doing([[(0, 1.0)]], 4)), "nothing told the two apart"


def test_only_what_was_known_counts():
    history = [(0, 1.0), (1, 1.0), (0, 0.0)]  # at the second press UCB wants 1, greedy 0
    assert doing([history], 2) == 1.0
    assert np.isnan(doing([history], 2, [[True, False, True]]))


@pytest.mark.exact(5)
def test_coverage_never_falls():
    for history in play(lambda h, k: random.Random(len(h)).randrange(k)):
        share_T = coverage(history, 4)
        assert (np.diff(share_T) >= 0).all()
        assert share_T[0] == 1 / 4
    assert list(coverage([(2, 1.0), (2, 0.0), (0, 1.0)], 4)) == [0.25, 0.25, 0.5]


@pytest.mark.exact(5)
def test_the_bias_of_a_counter_is_recovered_whatever_was_paid():
    """It presses the first of the arms that were pressed least."""

    def counter(history, arms):
        counts = [sum(a == arm for a, _ in history) for arm in range(arms)]
        return counts.index(min(counts))

    histories = play(counter, steps=24)
    pays = [pay for history in histories for _, pay in history]
    random.Random(1).shuffle(pays)
    shuffled = [[(arm, pays.pop()) for arm, _ in history] for history in histories]
    # round c shows an arm at count c 4 + 3 + 2 + 1 times and presses 4 of them; round c - 1 shows it 1 + 2 + 3 times
    expected = {0: 4 / 10} | dict.fromkeys(range(1, 6), 4 / 16) | {6: 0.0}
    assert frequency_bias(shuffled, 4) == frequency_bias(histories, 4) == expected


def test_presses_are_read_from_what_the_world_answered():
    import asyncio

    world = bandit(arms=3, presses=6)
    task = world.tasks("test")[0]
    (played,) = asyncio.run(collect(scripted(world.solve(task, 0)), [task], agent=native(), max_turns=9))
    history = presses(played, played.episodes[0])
    assert len(history) == 6
    assert np.mean([pay for _, pay in history]) == pytest.approx(played.episodes[0].reward)
    assert doing([history], 3) == 1.0


def test_what_is_written_is_compared_with_ucb():
    history = [(0, 1.0), (1, 0.0), (0, 0.0)]
    told = ", ".join(f"{name} = {value:.2f}" for name, value in zip("ABC", ucb(history, 3), strict=True))
    assert told.endswith("C = inf")
    assert knows(f"I think {told}.", history, 3)
    assert not knows(told.replace("C = inf", "C = 2.0"), history, 3)
    assert not knows("A = 1", history, 3)
