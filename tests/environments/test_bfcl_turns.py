"""The leaderboard's own conversations, executors and checks, played through the world."""

import importlib.util
import json
import re

import pytest

from etude.agents.loops.native import native
from etude.core.errors import EnvironmentFault, MissingExtra, PartError
from etude.core.parts import build
from etude.environments.bfcl_turns import CATEGORIES, INSTALL, STEPS, bfcl_turns
from etude.policies.scripted import scripted
from etude.protocols import SPLITS
from etude.rollout.collect import collect
from etude.trajectory import Message, StopReason, ToolCall

HERE = all(importlib.util.find_spec(package) for package in ("bfcl_eval", "mpmath"))
needs_data = pytest.mark.skipif(not HERE, reason=INSTALL)
BROKEN = {f"bfcl/multi_turn_{category}_173" for category in CATEGORIES} | {"bfcl/multi_turn_miss_func_49"}
NO = Message("assistant", "No.")


def every_task(category):
    return [task for split in SPLITS for task in bfcl_turns(category).tasks(split)]


def task_of(id):
    return next(task for task in every_task("all") if task.id == f"bfcl/multi_turn_{id}")


async def play(task, messages):
    session = task.environment.open()
    await session.reset(task, 0)
    for message in messages:
        step = await session.step(message)
        if step.done:
            return step, session
    raise AssertionError(f"{task.id} is not over after {len(messages)} messages")


def calling(name, **arguments):
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))


@needs_data
@pytest.mark.parametrize("category", CATEGORIES)
async def test_the_leaderboards_calls_earn_1_and_silence_0(category):
    tasks = every_task(category)
    assert len(tasks) == 200
    missed = {task.id for task in tasks if (await play(task, task.environment.solve(task, 0)))[0].reward != 1.0}
    assert missed == BROKEN & {task.id for task in tasks}
    assert not any([(await play(task, [NO] * 10))[0].reward for task in tasks])


@needs_data
def test_splits_are_fixed_and_keep_the_variants_of_a_conversation_together():
    world = bfcl_turns("all")
    sizes = {split: len(world.tasks(split)) for split in SPLITS}
    assert sizes == {"train": 624, "dev": 92, "test": 84}
    assert world.tasks("test")[0].id == "bfcl/multi_turn_base_7"
    numbers = [{re.search(r"\d+$", task.id)[0] for task in world.tasks(split)} for split in SPLITS]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 200
    assert len({task.id for task in every_task("all")}) == 800


@needs_data
@pytest.mark.exact(39)
@pytest.mark.parametrize("category", ["base", "miss_func"])
async def test_with_progress_a_part_of_the_solution_earns_its_share(category):
    world, shares = bfcl_turns(category, progress=True), set()
    for task in world.tasks("dev"):
        if task.id in BROKEN:
            continue
        gold, said = task.data["gold"], world.solve(task, 0)
        ends = [0, *(n + 1 for n, message in enumerate(said) if not message.tool_calls)]
        for k, end in enumerate(ends):
            step, _ = await play(task, said[:end] + [NO] * (len(gold) - k))
            assert step.reward == sum(map(bool, gold[:k])) / sum(map(bool, gold)), (task.id, k)
            shares.add(step.reward)
    assert {0, 0.5, 1} < shares


def suites_verdict(task, turns, label):
    """What the leaderboard's own checker says of these turns: messages, each a list of calls."""
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    def written(call):
        return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"

    said = [[[written(call) for call in message] for message in turn] for turn in turns]
    gold = [[written(call) for call in turn] for turn in task.data["gold"]]
    name = re.sub(r"\W", "_", f"{label}_{task.id}")  # under which it keeps its worlds for ever
    return multi_turn_checker(said, gold, task.data, "", name)["valid"]


@needs_data
@pytest.mark.parametrize("change", ["nothing", "a call left out", "a call twice", "a turn left out", "turns swapped"])
async def test_the_verdict_is_the_leaderboards(change):
    verdicts = []
    for task in every_task("all")[::9]:
        turns = [[[call] for call in turn] for turn in task.data["gold"]]
        full = [t for t, turn in enumerate(turns) if turn]
        if change == "a call left out":
            del turns[full[-1]][0]
        elif change == "a call twice":
            turns[full[0]].append(turns[full[0]][-1])
        elif change == "a turn left out":
            turns[full[0]] = []
        elif change == "turns swapped":
            turns[full[0]], turns[full[-1]] = turns[full[-1]], turns[full[0]]
        if task.id in BROKEN or max(map(len, turns)) > STEPS:
            continue
        said = [
            message for turn in turns for message in (*(Message("assistant", tool_calls=tuple(m)) for m in turn), NO)
        ]
        if task.domain == "miss_func" and change == "turns swapped":
            continue  # a function that is not there yet is refused here, and run by the leaderboard
        (step, _) = await play(task, said)
        assert bool(step.reward) == suites_verdict(task, turns, change), task.id
        verdicts.append(step.reward)
    assert len(verdicts) > 50
    if change == "nothing":
        assert all(verdicts)
    elif change != "a call twice":
        assert sum(verdicts) < len(verdicts) / 3


@needs_data
async def test_results_are_those_of_the_leaderboards_own_executor():
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call

    for task in [t for t in every_task("all") if t.id not in BROKEN][::11]:
        _, session = await play(task, task.environment.solve(task, 0))
        key = next(row["ground_truth"] for row in answers(task.domain) if f"bfcl/{row['id']}" == task.id)
        results = []
        for turn in key:
            got, _ = execute_multi_turn_func_call(
                turn, task.data["initial_config"], task.data["involved_classes"], "executor", task.data["id"],
                long_context=task.domain == "long_context",
            )  # fmt: skip
            results += got
        assert session.results == results


def answers(category):
    import bfcl_eval

    file = f"{bfcl_eval.__path__[0]}/data/possible_answer/BFCL_v4_multi_turn_{category}.json"
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@needs_data
async def test_the_users_words_come_one_turn_after_the_other():
    task = task_of("base_0")
    session = task.environment.open()
    seen = [(await session.reset(task, 0)).messages]
    for message in task.environment.solve(task, 0):
        step = await session.step(message)
        if not message.tool_calls:
            seen.append(step.observation.messages)
    asked = [tuple(Message("user", m["content"]) for m in turn) for turn in task.data["question"]]
    assert seen == [*asked, ()]


@needs_data
async def test_a_function_that_is_missing_is_refused_until_the_user_brings_it():
    task = task_of("miss_func_0")
    assert task.data["missed_function"] == {"3": ["sort"]}
    session = task.environment.open()
    await session.reset(task, 0)
    loops_view = session.tools
    sort = calling("sort", file_name="final_report.pdf")
    assert "no tool 'sort'" in (await session.step(sort)).observation.messages[0].content
    for _ in range(3):
        (said,) = (await session.step(NO)).observation.messages
    assert '"name": "sort"' in said.content
    assert said.content.endswith("What about now?")
    assert "sort" in [tool["name"] for tool in loops_view]
    assert "no tool" not in (await session.step(sort)).observation.messages[0].content


@needs_data
async def test_a_turn_may_not_go_on_for_ever_and_the_next_counts_anew():
    task = task_of("base_0")
    session = task.environment.open()
    await session.reset(task, 0)
    for _ in range(STEPS):
        assert not (await session.step(calling("pwd"))).done
    await session.step(NO)
    for _ in range(STEPS):
        assert not (await session.step(calling("pwd"))).done
    step = await session.step(calling("pwd"))
    assert (step.done, step.reward) == (True, 0.0)


@needs_data
@pytest.mark.parametrize("id", ["miss_func_0", "long_context_0", "base_100"])
async def test_a_fork_goes_its_own_way(id):
    task = task_of(id)
    gold = task.environment.solve(task, 0)
    session, fork = task.environment.open(), task.environment.open()
    await session.reset(task, 0)
    for message in gold[: len(gold) // 2]:
        await session.step(message)
    saved = await session.snapshot()
    assert saved.state is not None  # a copy, not a replay
    outcomes = []
    for one, rest in ((session, [NO] * 10), (fork, gold[len(gold) // 2 :]), (session, gold[len(gold) // 2 :])):
        await one.restore(saved)
        steps = []
        for message in rest:
            steps.append(await one.step(message))
            if steps[-1].done:
                break
        outcomes.append((steps[-1].reward, [s.observation for s in steps], one.tools))
    assert outcomes[0][0] == 0.0
    assert outcomes[1] == outcomes[2]
    assert outcomes[1][0] == 1.0


@needs_data
async def test_an_agent_plays_it_and_one_that_is_cut_earns_nothing():
    task = task_of("miss_param_3")
    said = task.environment.solve(task, 0)
    (whole,) = await collect(scripted(said), [task], agent=native(), max_turns=60)
    assert (whole.episodes[0].reward, whole.episodes[0].stop) == (1.0, StopReason.ANSWERED)
    (cut,) = await collect(scripted(said), [task], agent=native(), max_turns=len(said) - 1)
    assert (cut.episodes[0].reward, cut.episodes[0].stop) == (0.0, StopReason.TURNS)


@needs_data
async def test_the_worlds_own_complaints_are_words():
    task = task_of("base_0")
    session = task.environment.open()
    await session.reset(task, 0)
    (answer,) = (await session.step(calling("cd", folder="nowhere"))).observation.messages
    assert "No such file or directory" in answer.content


@needs_data
def test_what_is_not_there_names_the_closest():
    with pytest.raises(PartError, match="did you mean 'miss_param'"):
        build("environments/bfcl_turns", category="miss_params")
    with pytest.raises(PartError, match="did you mean 'test'"):
        bfcl_turns().tasks("tests")


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install --no-deps bfcl-eval==2026\.3\.23 mpmath$"):
        bfcl_turns()


@needs_data
async def test_a_vector_is_no_action_here():
    import numpy as np

    task = task_of("base_0")
    session = task.environment.open()
    await session.reset(task, 0)
    with pytest.raises(EnvironmentFault, match="takes messages"):
        await session.step(np.zeros(3))
