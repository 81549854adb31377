"""The simulated schedule against cases that can be worked out by hand, and against laws that hold for all."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "schedule.py"
spec = importlib.util.spec_from_file_location("schedule", FILE)
schedule = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schedule)
Setting, simulate = schedule.Setting, schedule.simulate

# 8 episodes of 100 tokens on 2 samplers: 4 slots decode, a token takes 0.1 + 4 * 0.05 = 0.3 s, so play takes 30 s
EVEN = {"samplers": 2, "slots": 4, "token": 0.1, "slot": 0.05, "tasks": 2, "group": 4, "tokens": 100.0, "steps": 5}


def test_without_chance_the_synchronous_loop_is_a_sum():
    found = simulate(Setting(**EVEN, train=80.0, publish=2.0))  # 800 tokens: 10 s
    assert found["seconds"] == pytest.approx(5 * (30 + 10) + 4 * 2)
    assert found["learner idle"] == pytest.approx(1 - 50 / 208)
    assert found["samplers idle"] == pytest.approx(1 - 150 / 208)
    assert found["full"] == pytest.approx(1.0)
    assert found["behind"] == {0: 1.0}
    assert found["wait for slot"] == found["wait for learner"] == pytest.approx(0.0)


@pytest.mark.parametrize(("train", "seconds"), [(80.0, 5 * 30 + 10), (16.0, 30 + 5 * 50)])
def test_without_chance_one_step_ahead_takes_as_long_as_the_slower_side(train: float, seconds: float):
    found = simulate(Setting(**EVEN, train=train, ahead=1))
    assert found["seconds"] == pytest.approx(seconds)
    assert found["behind"] == pytest.approx({0: 0.2, 1: 0.8})


def test_environments_take_their_time_and_too_few_slots_make_waves():
    # turns of 50 tokens: 4 alone in 1 wave; with 2 slots a token takes 0.2 s, and the second wave waits for the first
    found = simulate(Setting(**EVEN, train=80.0, turns=2, wait=3.0))
    assert found["seconds"] == pytest.approx(5 * (30 + 2 * 3 + 10))
    found = simulate(Setting(**EVEN | {"slots": 2}, train=80.0, turns=2, wait=3.0))
    assert found["seconds"] == pytest.approx(5 * (2 * (20 + 2 * 3) + 10))
    assert found["wait for slot"] == pytest.approx((20 + 6) / 2)


def test_an_answer_alone_is_faster():
    # 3 episodes on 2 samplers: two share one (0.2 s a token), the third has its own (0.15 s)
    found = simulate(Setting(**EVEN | {"tasks": 1, "group": 3, "steps": 1}, train=30.0))
    assert found["seconds"] == pytest.approx(20 + 10)
    assert found["wait for learner"] == pytest.approx((20 - 15) / 3)


def test_chance_makes_bubbles_and_playing_ahead_fills_them():
    found = [simulate(Setting(**EVEN | {"steps": 40}, train=80.0, spread=1.0, ahead=k)) for k in (0, 1, 3)]
    assert found[0]["samplers idle"] > found[1]["samplers idle"] > found[2]["samplers idle"]
    assert found[0]["episodes/s"] < found[1]["episodes/s"] < found[2]["episodes/s"]
    assert [max(one["behind"]) for one in found] == [0, 1, 3]
    assert sum(found[2]["behind"].values()) == pytest.approx(1.0)
