"""environments/reasoning_gym: the suite's questions and its own checkers, kept from being outwitted."""

import os
import random
import subprocess
import sys

import pytest

from etude.agents.loops import native
from etude.core.errors import EnvironmentFault, PartError
from etude.environments import reasoning_gym
from etude.environments.reasoning_gym import EVALUATED, UNJUDGED, UNSOLVED, dataset, generators
from etude.policies import scripted
from etude.rollout.collect import collect
from etude.trajectory import Message

pytest.importorskip("reasoning_gym", reason="pip install 'etude[reasoning-gym]'")
QUICK = ["chain_sum", "basic_arithmetic", "count_bits", "jugs", "family_relationships", "list_functions", "rearc"]


async def earns(world, task, said):
    (played,) = await collect(scripted([Message("assistant", said)]), [task], agent=native(), max_turns=1)
    assert played.episodes[0].failure is None, played.episodes[0].failure
    return played.episodes[0].reward


async def test_the_suites_answers_earn_1_and_others_next_to_nothing():
    world = reasoning_gym([*QUICK, *EVALUATED])
    for task in world.tasks("test")[: 2 * len(world.names)]:
        gold = world.solve(task, 0)[0].content
        assert await earns(world, task, f"So it is clear. {gold}") == 1.0, task.id
        assert await earns(world, task, "<answer>I do not know</answer>") <= 0.05, task.id
        assert await earns(world, task, "") == 0.0
        assert await earns(world, task, task.data["entry"]["answer"]) == 0.0, "without tags"
    world.crew.close()


async def test_an_answer_that_is_a_program_does_not_run():
    world = reasoning_gym("string_insertion")
    task = world.tasks("train")[0]
    answer = task.data["entry"]["answer"]
    assert await earns(world, task, f"<answer>{list(answer)}</answer>") == 0.1, "a list of letters is a little right"
    assert await earns(world, task, "<answer>list(oracle_answer)</answer>") == 0.0
    world.crew.close()


async def test_an_answer_that_the_checker_cannot_bear_earns_0_and_the_next_is_judged():
    world = reasoning_gym(["countdown", "prime_factorization"])
    world.crew.seconds = 8
    countdown, primes = world.tasks("dev")[:2]
    assert await earns(world, countdown, "<answer>9**9**9**9</answer>") == 0.0
    assert await earns(world, countdown, world.solve(countdown, 0)[0].content) == 1.0
    assert await earns(world, primes, "<answer>two times three</answer>") == 0.0
    world.crew.close()


def test_levels_are_those_of_the_suites_curricula():
    easy, hard = (reasoning_gym("chain_sum", level=level).tasks("train")[:20] for level in (0, 4))
    assert (easy[0].id, easy[0].difficulty) == ("reasoning_gym/chain_sum@0/train/0", 0.0)
    lengths = [sum(len(t.data["entry"]["question"]) for t in tasks) for tasks in (easy, hard)]
    assert lengths[0] < lengths[1]
    beyond = reasoning_gym("chain_sum", level=99).tasks("train")[0]
    assert beyond.data["entry"]["metadata"]["difficulty"] is not None
    same = [reasoning_gym("list_functions", level=level).tasks("train")[0].data for level in (None, 2)]
    assert same[0] == same[1], "no curriculum"


def test_a_task_is_always_the_same_question_and_splits_share_no_seed():
    names = ["acre", "list_functions", "products"]
    world = reasoning_gym(names, size=40)
    random.seed(1)  # of which some generators draw
    tasks = {split: list(world.tasks(split)) for split in ("train", "dev", "test")}
    assert [t.id for t in tasks["dev"]] == [f"reasoning_gym/{names[i % 3]}/dev/{i // 3}" for i in range(4)]
    dataset.cache_clear()
    random.seed(2)
    expected = random.Random(2).random()
    backwards = reasoning_gym(names).tasks("train")[39::-1]
    assert [t.data for t in backwards[::-1]] == [t.data for t in tasks["train"]]
    assert random.random() == expected, "the state of others is left alone"
    asked = [t.data["entry"]["question"] for split in tasks.values() for t in split]
    assert len(asked) == 48
    assert len(set(asked)) >= 46, "but for short products that chance draws twice"
    assert tasks["train"][2].domain == "arithmetic"


def test_sets_of_texts_have_the_same_order_in_every_process():
    program = (
        "from etude.environments import reasoning_gym as world; import hashlib\n"
        "task = world(['isomorphic_strings', 'chain_sum']).tasks('test')[102]\n"
        "print(task.id, hashlib.sha256(task.data['entry']['question'].encode()).hexdigest())"
    )
    path = os.pathsep.join(sys.path)
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert said.pop().startswith(b"reasoning_gym/isomorphic_strings/test/51 ")


def test_settings():
    left = UNSOLVED | UNJUDGED
    assert set(reasoning_gym().names) == set(generators()) - left
    assert left < set(generators())
    with pytest.raises(PartError, match="no generator 'chain_some'; did you mean 'chain_sum'"):
        reasoning_gym("chain_some")
    with pytest.raises(PartError, match="level is -1"):
        reasoning_gym(level=-1)
    with pytest.raises(PartError, match="no split 'valid'"):
        reasoning_gym("chain_sum").tasks("valid")
    world = reasoning_gym("rubiks_cube")
    with pytest.raises(EnvironmentFault, match="'rubiks_cube' gives no solution"):
        world.solve(world.tasks("test")[0], 0)
