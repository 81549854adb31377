"""rollout.branch: back to recorded states, and on from there."""

import asyncio

import pytest

from etude.agents.loops import native
from etude.core.errors import TrajectoryError
from etude.environments import desk, lookup
from etude.environments.desk import VALUE_OPS, load_domains
from etude.policies import scripted
from etude.rollout.branch import branch
from etude.rollout.collect import collect
from etude.synthesis.slips import slips
from etude.trajectory import Message

WORLD = desk(difficulty=3)
TASKS = {task.id: task for task in WORLD.tasks("train")[:6]}
NATIVE = native()


def play(share: float = 0.0, mend: bool = False, tasks=TASKS):
    said = {t.id: slips(t.environment.solve(t, 0), share, mend=mend, seed=t.id) for t in tasks.values()}
    return asyncio.run(collect(scripted(said), list(tasks.values()), agent=NATIVE, max_turns=99))


def on(policy, origins, tasks=TASKS, **settings):
    return asyncio.run(branch(policy, origins, tasks, agent=NATIVE, **settings))


SILENT = scripted(lambda dialogue: Message("assistant", "no"))


@pytest.mark.exact(14, 192)
def test_replaying_the_answers_up_to_a_state_gives_the_recorded_observations():
    origins = play()
    made = on(SILENT, origins)
    assert len(made) == sum(t.episodes[0].turns for t in origins)  # one for every state
    for branched in made:
        origin = next(t for t in origins if t.id == branched.meta["origin"])
        whole = origin.dialogue(origin.episodes[0].leaf)
        again = branched.dialogue(branched.episodes[0].leaf)
        assert again[:-1] == whole[: len(again) - 1]
        assert again[-1] == Message("assistant", "no")
        assert sum(m.role == "assistant" for m in again) == branched.meta["start"] + 1


def test_states_lie_apart_and_the_policy_has_so_many_answers():
    origins = play()
    again = scripted({t.id: [*t.environment.solve(t, 0)] for t in TASKS.values()})
    made = on(again, origins, every=2, turns=1, group=3)
    assert {t.meta["start"] for t in made} == {0, 2}
    assert all(len(t.episodes) == 3 for t in made)
    assert all(e.turns == t.meta["start"] + 1 for t in made for e in t.episodes)


def test_a_task_that_was_played_twice_is_branched_twice():
    origins = [*play(), *play(share=1.0)]
    for i, t in enumerate(origins):
        t.id = str(i)
    made = on(SILENT, origins)
    assert {t.meta["origin"] for t in made} == {t.id for t in origins}
    assert len({t.id for t in made}) == len(made)


@pytest.mark.exact(45)
def test_without_a_step_that_decides_the_episode_fails():
    """In desk every call that writes decides, and no call that reads; in lookup the answer does."""
    origins = {t.id: t for t in play()}
    for branched in on(None, list(origins.values())):
        origin = origins[branched.meta["origin"]]
        left_out = [m for m in origin.messages if m.role == "assistant"][branched.meta["without"]]
        tools = load_domains()[origin.meta["domain"]].named("status", *VALUE_OPS)
        writes = any(call.name in tools for call in left_out.tool_calls)
        assert branched.episodes[0].reward == float(not writes)
    questions = {task.id: task for task in lookup().tasks("train")[:6]}
    for branched in on(None, play(tasks=questions), questions):
        answered = "Answer:" in branched.messages[-1].content
        assert branched.episodes[0].reward == float(answered)
        assert answered == (branched.meta["without"] < len(questions[branched.task].data["queries"]))


def test_a_replay_that_leads_elsewhere_is_an_error():
    origins = play()
    result = next(i for i, m in enumerate(origins[0].messages) if m.role == "tool")
    origins[0].messages[result] = Message("tool", "changed", tool_call_id="call_1")
    with pytest.raises(TrajectoryError, match=r"cannot be played again: message .* was 'changed' and is"):
        on(SILENT, origins)


def test_nothing_starts_behind_an_answer_that_could_not_be_read():
    origins = play()
    origin = origins[0]
    second = [n for n in origin.path(origin.episodes[0].leaf) if origin.nodes[n].sampled][1]
    origin.nodes[second].scores["malformed"] = 1.0
    assert [t.meta["start"] for t in on(SILENT, [origin])] == [0]


def test_slips_are_played_and_mended():
    wrong, mended = play(share=1.0), play(share=1.0, mend=True)
    assert all(t.episodes[0].reward == 0.0 for t in wrong)
    assert all(t.episodes[0].reward == 1.0 for t in mended)
    assert any(m.content.startswith("error:") for t in mended for m in t.messages)
    assert [t.messages for t in play(share=0.0, mend=True)] == [t.messages for t in play()]
