"""environments/shell: solutions, judging, splits, forks."""

import asyncio
import subprocess

import pytest

from etude.core.errors import EnvironmentFault, PartError
from etude.environments import shell
from etude.environments.shell import KINDS, THEMES, File, same, unpacked
from etude.tools.sandbox import Sandbox
from etude.trajectory import Message, ToolCall

SPLITS = ("train", "dev", "test", "domains")


@pytest.fixture(autouse=True, scope="module")
def isolation():
    try:
        asyncio.run(Sandbox().shell("true"))
    except EnvironmentFault as error:
        if "does not let it shut itself in" not in str(error):
            raise
        pytest.skip(str(error))


def run(command: str) -> Message:
    return Message("assistant", "", (ToolCall("bash", {"command": command}, "c"),))


async def play(session, messages) -> float | None:
    step = None
    for message in messages:
        step = await session.step(message)
    return step.reward if step else None


async def episode(world, task, messages) -> float | None:
    session = world.open()
    await session.reset(task, 0)
    try:
        return await play(session, messages)
    finally:
        await session.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_solution_earns_everything_and_idleness_nothing(kind):
    """One task of each size; an answer of nothing, and the solution without its commands or without its answer."""
    world = shell(kinds=kind)
    tasks = [world.tasks("train")[0], world.tasks("test")[1], world.tasks("domains")[2]]
    assert [task.difficulty for task in tasks] == [1, 2, 3]
    for task in tasks:
        gold = world.solve(task, 0)
        assert await episode(world, task, gold) == 1.0, (task.data["draft"].prompt, gold)
        idle = Message("assistant", "Answer: done" if task.data["draft"].answer else gold[-1].content)
        assert await episode(world, task, [idle]) == 0.0
        assert await episode(world, task, [run("cat /etc/passwd; ls -R"), Message("assistant", "")]) == 0.0


async def test_other_files_must_stay_as_they_were():
    world = shell(kinds="delete_empty")
    task = world.tasks("train")[0]
    gold, folder = world.solve(task, 0), next(iter(task.data["draft"].files)).split("/")[0]
    assert await episode(world, task, [gold[0], run("echo x > /tmp/notes; echo x > notes"), gold[-1]]) == 1.0
    assert await episode(world, task, [gold[0], run(f"echo more >> {folder}/kept.tmp"), gold[-1]]) == 0.0
    assert await episode(world, task, [run(f"rm -r {folder}"), gold[-1]]) == 0.0


async def test_a_program_is_tried_on_what_it_has_not_seen():
    world = shell(kinds="mend_program")
    task = world.tasks("train")[0]
    learnt = run("echo 'print(17)' > total.py")  # right for the example alone
    assert await episode(world, task, [learnt, Message("assistant", "Done.")]) == 0.0
    endless = run("echo 'while True: pass' > total.py")
    assert await episode(world, task, [endless, Message("assistant", "Done.")]) == 0.0


@pytest.mark.parametrize("made", ["{0}", "./{0}", "/work/{0}", " `{0}`.", "no. Answer: {0}"])
async def test_a_path_may_be_given_in_any_way(made):
    world = shell(kinds="find_text")
    task = world.tasks("train")[0]
    said = Message("assistant", "Answer: " + made.format(task.data["draft"].answer))
    assert await episode(world, task, [said]) == 1.0
    assert await episode(world, task, [Message("assistant", task.data["draft"].answer)]) == 0.0


async def test_a_call_that_fails_is_told_and_a_limit_too():
    world = shell()
    session = world.open()
    await session.reset(world.tasks("train")[0], 0)
    told = [(await session.step(run(c))).observation.messages[0].content for c in ("cat nothing", "sleep 1000", "pwd")]
    await session.close()
    assert told[0].startswith("error: cat: nothing: No such file")
    assert "stopped after 10 s" in told[1]
    assert told[2] == "/work"


async def test_a_fork_has_its_own_files_and_folder():
    world = shell(kinds="merge_numbers")
    task = world.tasks("train")[0]
    gold = world.solve(task, 0)
    one, two = world.open(), world.open()
    await one.reset(task, 0)
    await one.step(run("mkdir /tmp/d; cd /tmp/d; export N=5; echo kept > f"))
    snapshot = await one.snapshot()
    await one.step(run("cd /work; rm -r *"))
    await two.restore(snapshot)
    step = await two.step(run("pwd; echo $N; cat f; cd /work"))
    assert step.observation.messages[0].content == "/tmp/d\n5\nkept"
    assert await play(two, gold) == 1.0
    assert await play(one, gold) == 0.0
    await one.restore(snapshot)  # and back
    assert not one.done
    assert len(one.actions) == 1
    assert await play(one, [run("cd /work"), *gold]) == 1.0
    for session in (one, two):
        await session.close()


async def test_a_reset_leaves_nothing_of_the_last_episode():
    world = shell()
    session = world.open()
    for _ in range(2):
        await session.reset(world.tasks("train")[0], 0)
        listing = (await session.step(run("ls -R /work /tmp; pwd; echo $A"))).observation.messages[0].content
        assert "left" not in listing
        await session.step(run("export A=left; touch /tmp/left left; cd /tmp"))
    await session.close()


async def test_an_episode_that_is_cut_off_is_judged_by_its_files():
    world = shell(kinds="rename", max_steps=1)
    task = world.tasks("train")[0]
    session = world.open()
    await session.reset(task, 0)
    assert await session.current_reward() == 0.0
    step = await session.step(world.solve(task, 0)[0])
    assert (step.done, step.reward) == (True, 1.0)
    await session.close()


def test_splits_share_no_task_and_new_domains_no_theme():
    world = shell()
    tasks = {split: [world.tasks(split)[i] for i in range(200)] for split in SPLITS}
    drafts = [repr(task.data["draft"]) for split in SPLITS for task in tasks[split]]
    assert len(set(drafts)) == len(drafts)
    themes = list(THEMES)
    assert {task.domain for task in tasks["train"]} == set(themes[:-1])
    assert {task.domain for task in tasks["domains"]} == {themes[-1]}
    assert {task.skills[0] for task in tasks["dev"]} == set(KINDS)
    again = shell().tasks("test")[150]
    assert (again.id, repr(again.data["draft"])) == (tasks["test"][150].id, repr(tasks["test"][150].data["draft"]))


def test_fewer_kinds_have_the_same_tasks():
    some = shell(kinds=["rename", "pack"]).tasks("train")
    every = {task.id: task for task in shell(size=100).tasks("train")}
    assert {task.skills[0] for task in some[:6]} == {"rename", "pack"}
    assert all(repr(every[task.id].data["draft"]) == repr(task.data["draft"]) for task in some[:8])
    with pytest.raises(PartError, match="did you mean 'rename'"):
        shell(kinds="renam")


def test_what_must_not_be_told_is_not_told():
    world = shell()
    for task in world.tasks("train")[:60]:
        draft = task.data["draft"]
        shown = draft.prompt + "".join(map(str, draft.files.values()))
        assert not [text for text in world.secrets(task) if text in shown]
        assert world.secrets(task)


def test_links_may_be_relative_or_not_and_bombs_are_no_archives():
    wanted = File("a-2", kind="link")
    assert same("d/current", File("/work/d/a-2", kind="link"), wanted)
    assert not same("d/current", File("../a-2", kind="link"), wanted)
    assert not same("d/current", File("a-2"), wanted)
    bomb = subprocess.run("head -c 50000000 /dev/zero | gzip", shell=True, capture_output=True).stdout
    assert unpacked(File(bomb)) in (None, {})
    assert unpacked(File(b"no archive")) is None
