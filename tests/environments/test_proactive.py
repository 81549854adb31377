"""environments/proactive: when help is needed, what an offer changes, and how it is counted."""

import functools
import math
import random
from collections import Counter

import pytest

from etude.core.errors import PartError
from etude.environments.proactive import HELD_OUT, KINDS, PATIENCE, POINTS, Scene, Thing, deed, eager, label, proactive
from etude.evaluation.confusion import COUNTS, parts_of
from etude.evaluation.random_agent import RandomAgent
from etude.rendering.verdicts import question
from etude.trajectory import Message, ToolCall


async def play(task, messages, world=proactive()):
    """The messages of the episode, the last step, and the session."""
    session = world.open()
    dialogue = list((await session.reset(task, 0)).messages)
    step = None
    for message in messages:
        step = await session.step(message)
        dialogue += [message, *step.observation.messages]
        if step.done:
            break
    return dialogue, step, session


def rates(policy, split="test"):
    """Rates over all points of a split, of a function of the scene."""
    total, rng = Counter(), random.Random(0)
    for task in proactive().tasks(split):
        scene = Scene(task.data)
        while not scene.over:
            scene.decide(policy(scene, rng))
        total.update(scene.counts)
    pairs = {rate: parts_of(rate, total) for rate in ("f1", "recall", "false alarm")}
    return {rate: above / below if below else math.nan for rate, (above, below) in pairs.items()}


def likely(scene, rng):
    """The best offer that can be made at every point."""
    return scene.at.verb


@pytest.mark.exact(48)
async def test_the_counts_add_up_to_the_decision_points_whatever_the_agent_does():
    world, ends = proactive(), set()
    for n, task in enumerate(world.tasks("test")[:100]):
        agent, session = RandomAgent(str(n)), world.open()
        new = (await session.reset(task, 0)).messages
        while not session.done:
            step = await session.step(agent(session.tools, new))
            new, scores = step.observation.messages, step.info["scores"]
            assert sum(scores[name] for name in COUNTS) == POINTS
        ends.add(session.scene.point)
        made = {name: scores[name] for name in COUNTS}
        assert step.reward == pytest.approx(2 * made["tp"] / (2 * made["tp"] + made["fp"] + made["fn"]))
    assert ends >= {0, POINTS}  # some leave at once, some stay


@pytest.mark.exact(48)
async def test_silence_has_recall_0_and_always_offering_has_false_alarm_1():
    assert rates(lambda scene, rng: "") == {"f1": 0.0, "recall": 0.0, "false alarm": 0.0}
    always = rates(likely)
    assert (always["recall"], always["false alarm"]) == (1.0, 1.0)
    assert rates(lambda scene, rng: "help")["false alarm"] == 1.0
    task = proactive().tasks("test")[0]
    for said, told in (([deed("", n) for n in range(POINTS)], "end"), ([Message("assistant", "")], None)):
        dialogue, step, session = await play(task, said)
        assert session.scene.confusion()["tp"] == session.scene.confusion()["fp"] == 0
        assert step.done
        assert step.reward == 0.0
        assert told is None or dialogue[-1].content == told


def test_what_trivial_agents_reach_is_far_from_who_knows_the_need():
    assert rates(lambda scene, rng: scene.need) == {"f1": 1.0, "recall": 1.0, "false alarm": 0.0}
    assert 0.1 < rates(likely)["f1"] < 0.3
    hasty = rates(eager)
    assert 0.3 < hasty["f1"] < 0.5
    assert hasty["false alarm"] > 0.3


def scene_of(*, signs: int, activity: str = "write", refused: int = 0) -> Scene:
    scene = Scene(proactive().tasks("train")[0].data)
    verb, (sign, _) = next(iter(scene.kind.troubles.items()))
    scene.at = Thing("parser", verb, signs)
    scene.event, scene.activity, scene.refused = sign, activity, refused
    return scene


@pytest.mark.exact(48)
@pytest.mark.parametrize(
    ("how", "offer", "accepted", "count"),
    [
        ({"signs": 2}, "VERB", True, "tp"),
        ({"signs": 3}, "Shall I VERB, the parser?", True, "tp"),  # words count
        ({"signs": 2}, "OTHER", False, "fp"),
        ({"signs": 2}, "VERB or OTHER", False, "fp"),  # naming everything is no offer
        ({"signs": 2}, "", False, "fn"),
        ({"signs": 1}, "VERB", False, "fp"),  # the user tries alone first
        ({"signs": 1}, "", True, "tn"),
        ({"signs": 1}, "the", False, "fp"),  # an offer of no words is no silence
        ({"signs": 2, "activity": "call"}, "VERB", False, "fp"),
        ({"signs": 2, "activity": "call"}, "", True, "tn"),
        ({"signs": 2, "refused": PATIENCE}, "VERB", False, "fp"),
        ({"signs": 2, "refused": PATIENCE}, "", True, "tn"),
    ],
)
def test_the_user_by_hand(how, offer, accepted, count):
    scene = scene_of(**how)
    other = next(verb for verb in scene.kind.troubles if verb != scene.at.verb)
    assert scene.decide(offer.replace("VERB", scene.at.verb).replace("OTHER", other)) == accepted
    assert scene.counts == {**dict.fromkeys(COUNTS, 0), count: 1}
    assert scene.right == accepted


def test_what_was_accepted_is_done_and_what_was_refused_is_remembered():
    scene = scene_of(signs=2)
    _, end = scene.kind.troubles[scene.at.verb]
    scene.decide(scene.need)
    assert (scene.at.name, scene.event, scene.at.over) == ("parser", end, True)
    scene = scene_of(signs=2)
    for n in range(PATIENCE):
        assert not scene.look().endswith("sound off"), n
        scene.decide("help")
    assert scene.look().endswith("sound off")
    needs = []
    while not scene.over:
        needs.append(scene.need)
        scene.decide("")
    assert not any(needs)


async def test_an_accepted_offer_changes_what_follows_and_a_fork_can_tell():
    world, differ = proactive(), 0
    for task in world.tasks("test")[:20]:
        said = world.solve(task, 0)
        at = next(n for n, message in enumerate(said) if message.tool_calls[0].name == "propose")
        session = world.open()
        await session.reset(task, 0)
        for message in said[:at]:
            await session.step(message)
        here = await session.snapshot()
        offered = await session.step(said[at])
        assert offered.observation.messages[0].content.startswith("yes\n")
        await session.restore(here)
        silent = await session.step(deed("", 0))
        assert silent.info["scores"]["fn"] >= 1
        assert silent.info["scores"]["right"] == 0
        differ += (
            offered.observation.messages[0].content.removeprefix("yes\n") != silent.observation.messages[0].content
        )
    assert differ > 10


async def test_the_need_can_be_read_and_its_words_are_told():
    """It is the trouble's again, the user is in no call, and the sound is on."""
    world = proactive(expert="eager")
    for task in world.tasks("domains"):
        dialogue, _, _ = await play(task, world.solve(task, 1), world)
        legend = dict(pair.split(": ") for pair in dialogue[0].content.split("wanted. ")[1].strip(".").split(". "))
        shown, scene = [m.content.splitlines()[-1] for m in dialogue if m.role in ("user", "tool")], Scene(task.data)
        seen: Counter[str] = Counter()
        for offer, text in zip(world.solve(task, 1), shown, strict=False):
            assert scene.look() == text
            event, state = text.split(". ")
            sign = event.removesuffix(" again")
            seen[sign] += 1
            assert (sign != event) == (seen[sign] > 1 and sign.split(": ")[1] in legend)
            wanted = sign != event and not state.startswith("call") and not state.endswith("off")
            assert scene.need == (legend[sign.split(": ")[1]] if wanted else "")
            scene.decide(offer.tool_calls[0].arguments.get("task", ""))


def test_scenes_of_their_own_and_kinds_never_seen():
    world = proactive(size=200)
    seeds = {
        split: {task.data.get("seed", task.id) for task in world.tasks(split)} for split in ("train", "dev", "test")
    }
    assert len(set.union(*seeds.values())) == 240
    assert {task.domain for task in world.tasks("domains")} == set(HELD_OUT)
    for split in ("train", "test", "labels", "verdicts"):
        assert {task.domain for task in world.tasks(split)} == set(KINDS) - set(HELD_OUT)


async def test_a_label_is_what_the_user_would_say():
    world = proactive()
    labels = world.tasks("labels")[:300]
    answers = Counter((task.data["answer"], task.data["question"].splitlines()[-2] == "> wait") for task in labels)
    assert len(answers) == 4
    assert min(answers.values()) > 20
    assert 0.4 < sum(n for (answer, _), n in answers.items() if answer == "accepted") / 300 < 0.6
    for task in labels[:30]:
        assert (await play(task, world.solve(task, 0)))[1].reward == 1.0
        other = {"accepted": "rejected", "rejected": "accepted"}[task.data["answer"]]
        assert (await play(task, [Message("assistant", other)]))[1].reward == 0.0


async def test_a_question_is_the_end_of_a_scene_as_it_would_be_played(monkeypatch):
    shown = [label(task.data, random.Random(n))["question"] for n, task in enumerate(proactive().tasks("test")[:30])]
    monkeypatch.setitem(label.__globals__, "question", functools.partial(question, events=99))
    for n, task in enumerate(proactive().tasks("test")[:30]):
        asked = label(task.data, random.Random(n))
        deeds = [line.removeprefix("> ") for line in asked["question"].splitlines() if line.startswith("> ")]
        said = [deed(text.removeprefix("propose ") if text != "wait" else "", k) for k, text in enumerate(deeds)]
        dialogue, step, _ = await play(task, said)
        last = next(k for k in range(len(dialogue) - 1, 0, -1) if dialogue[k].role == "assistant")
        assert question(dialogue[: last + 1], events=99) == asked["question"]
        assert question(dialogue[: last + 1]) == shown[n]
        assert asked["answer"] == ("accepted" if step.info["scores"]["right"] else "rejected")


async def test_a_wrong_call_is_no_decision():
    task = proactive().tasks("test")[0]
    dialogue, _, session = await play(task, [Message("assistant", "", (ToolCall("propose", {}),))])
    assert dialogue[-1].content.startswith("error: propose needs 'task'")
    assert session.scene.point == 0


def test_settings():
    with pytest.raises(PartError, match="no expert 'eagre'; did you mean 'eager'"):
        proactive(expert="eagre")
    with pytest.raises(PartError, match="no split 'label'; did you mean 'labels'"):
        proactive().tasks("label")
