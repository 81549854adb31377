"""agents/loops/modular: each module's prompt by hand, any subset of them, what is trained, a memory behind MCP."""

import sys
from pathlib import Path

import numpy as np
import pytest

from etude.agents.loops import modular
from etude.agents.loops.modular import Memory
from etude.core.errors import PartError
from etude.environments.arcade import arcade
from etude.policies.scripted import scripted
from etude.protocols import Sampling
from etude.rollout.collect import collect
from etude.training.learner import rows
from etude.trajectory import Message, StopReason, ToolCall

from ..engine_fixtures import GET, Talk

SOURCES = str(Path(__file__).resolve().parents[2] / "src")
ALL = ("reflection", "planning", "skills")


def contexts(trajectory):
    """Prompt and answer of every call, in order."""
    episode = trajectory.episodes[0]
    dialogues = [trajectory.dialogue(leaf) for leaf in (*episode.rewritten, episode.leaf)]
    return [(dialogue[-2].content, dialogue[-1]) for dialogue in dialogues]


async def play(task, agent, policy=None, **settings):
    policy = policy or scripted(agent.script(task.environment.solve(task, 0)))
    (trajectory,) = await collect(policy, [task], agent=agent, max_turns=99, **settings)
    assert trajectory.episodes[0].failure is None, trajectory.episodes[0].failure
    return trajectory


async def test_prompts_by_hand():
    memory = Memory()
    await memory.observe("a door")
    assert [await memory.prompt(module) for module in (*ALL, "action")] == [
        "",
        "a door\nWhat is the aim?",
        "",
        "a door",
    ]
    await memory.respond("planning", "get out")
    assert await memory.prompt("action") == "a door\nplan: get out"
    await memory.respond("action", "open")
    await memory.observe("a hall")
    told = "before: a door\naction: open\nnow: a hall"
    assert await memory.prompt("reflection") == f"{told}\nWas the action good or bad?"
    assert await memory.prompt("skills") == ""
    await memory.respond("reflection", "bad")
    assert await memory.prompt("skills") == ""
    await memory.respond("reflection", "Good.")
    assert await memory.prompt("skills") == f"{told}\nWhat did the action do?"
    asked = "a hall\nplan: get out\nreflection: Good.\nlast action: open\nWhat is the aim?"
    assert await memory.prompt("planning") == asked
    await memory.respond("skills", "opens the door")
    await memory.respond("planning", "find a door")
    assert await memory.prompt("action") == "a hall\nplan: find a door\nreflection: Good.\nskills: opens the door: open"
    with pytest.raises(PartError, match="no module 'plan'; did you mean 'planning'"):
        await memory.prompt("plan")
    with pytest.raises(PartError, match="no module 'plans'"):
        modular(modules=["plans"])


async def test_the_skills_most_like_the_plan_are_shown():
    memory = Memory(state="now")
    for n, thing in enumerate(["door", "lamp", "key", "box", "rope"]):
        memory.said["action"] = f"use {n}"
        await memory.respond("skills", f"moves the {thing}")
    await memory.respond("planning", "lamp and rope")
    assert memory.retrieved() == ["moves the lamp: use 1", "moves the rope: use 4"]


@pytest.mark.parametrize("modules", [(), ("reflection",), ("planning",), ("reflection", "planning"), ALL])
async def test_any_subset_plays_and_an_expert_fills_its_modules(modules):
    world = arcade(games=["town"], held=[])
    for task in world.tasks("dev")[:3]:
        solution, agent = world.solve(task, 0), modular(modules=modules)
        trajectory = await play(task, agent)
        assert trajectory.episodes[0].reward == 1
        made = contexts(trajectory)
        steps, skills = len(solution), "skills" in modules
        assert len(made) == steps + steps * ("planning" in modules) + (steps - 1) * (("reflection" in modules) + skills)
        assert [answer.tool_calls for _, answer in made if answer.tool_calls] == [m.tool_calls for m in solution]
        if "planning" in modules:
            plans = [m.thought.splitlines()[-1].removeprefix("planning: ") for m in solution]
            assert [a.content for p, a in made if p.endswith("What is the aim?")] == plans
        if "reflection" in modules:
            assert [a.content for p, a in made if p.endswith("bad?")] == ["good"] * (steps - 1)


async def test_every_call_is_a_context_of_its_own_and_is_trained(policy):
    """The samples are (prompt, module output): all of the latter have weight, nothing else has."""
    task = arcade(games=["stock"], held=[]).tasks("train")[0]
    trajectory = await play(task, modular())
    episode = trajectory.episodes[0]
    assert len(episode.rewritten) == 5 + 5 + 4 - 1
    from etude.apps.stages import fill

    class Holder:
        pass

    work = Holder()
    work.policy = policy  # type: ignore[attr-defined]
    fill(work, [trajectory])  # type: ignore[arg-type]
    trajectory.weigh([1.0])
    found = rows([trajectory])
    assert len(found) == 14
    for row, (prompt, answer) in zip(found, contexts(trajectory), strict=True):
        said = policy.renderer.decode(row.ids_P[row.mask_P])
        assert said == policy.renderer.text([Message("user", "x"), answer]).split("assistant\n")[1].rstrip("\n")
        assert prompt in policy.renderer.decode(row.ids_P[~row.mask_P])


async def test_a_local_model_is_asked_in_fresh_contexts(policy):
    task = arcade(games=["nim"], held=[]).tasks("train")[0]
    agent, sampling = modular(), Sampling(max_tokens=20)
    (trajectory,) = await collect(policy, [task], agent=agent, sampling=sampling, seed=3, max_turns=6)
    trajectory.check()
    episode = trajectory.episodes[0]
    assert episode.failure is None
    leaves = (*episode.rewritten, episode.leaf)
    assert len(leaves) == episode.turns
    for leaf in leaves:
        sampled = [n for n in trajectory.path(leaf) if trajectory.nodes[n].sampled]
        assert sampled == [leaf], "no answer is in the context of another"
        ids_T = trajectory.nodes[leaf].ids_T
        assert ids_T is not None
        assert np.isfinite(trajectory.nodes[leaf].logprob_T[trajectory.nodes[leaf].sampled_T]).all()


async def test_a_call_that_cannot_be_read_is_told_in_the_next_state_and_a_limit_ends_the_episode():
    from etude.protocols import Action

    class Acts:
        name, version, said = "acts", 0, 0

        async def act(self, trajectory, leaf, *, sampling, seed):
            self.said += 1
            broken = Action(Message("assistant", "<tool_call>{"), problem="not JSON")
            return leaf, broken if self.said < 3 else Action(Message("assistant", "the mat"))

    world = Talk(turns=2, score=lambda text: float(text == "the mat"), tools=(GET,))
    (trajectory,) = await collect(Acts(), world.tasks("train", 1), agent=modular(modules=()))
    prompts = [prompt for prompt, _ in contexts(trajectory)]
    assert prompts[:3] == ["the cat 0", "the cat 0\nerror: not JSON", "the cat 0\nerror: not JSON"]
    assert trajectory.episodes[0].reward == 1
    task = arcade(games=["town"], held=[]).tasks("dev")[0]
    agent = modular()
    policy = scripted(agent.script(task.environment.solve(task, 0)))
    (cut,) = await collect(policy, [task], agent=agent, max_turns=3)  # ends in the second step's reflection
    assert (cut.episodes[0].stop, cut.episodes[0].turns, cut.episodes[0].reward) == (StopReason.TURNS, 3, 0)


async def test_the_first_request_is_kept_where_states_do_not_tell_it():
    task = arcade(games=["farm"], held=[]).tasks("dev")[0]
    first = (await play(task, modular())).messages[1].content.removesuffix("\nWhat is the aim?")
    for kept in (False, True):
        made = await play(task, modular(modules=(), task=kept))
        episode = made.episodes[0]
        dialogues = [made.dialogue(leaf) for leaf in (*episode.rewritten, episode.leaf)]
        assert [len(dialogue) for dialogue in dialogues] == [3 + kept] * 8
        assert all((dialogue[1].content == first) == kept for dialogue in dialogues[1:])


@pytest.mark.exact(34)
async def test_modules_behind_mcp_give_the_same_episodes():
    pytest.importorskip("mcp")
    server = f"env PYTHONPATH={SOURCES} {sys.executable} -m etude.apps.serve.modules"

    def answer(dialogue):
        """Something for every module that follows from all that it was shown."""
        shown = dialogue[-1].content
        if "Was the action" in shown:
            return Message("assistant", "good" if len(shown) % 3 else "bad: nothing changed")
        if shown.endswith("?"):
            return Message("assistant", f"what {len(shown)} letters say of {shown.split()[-4]}")
        words = [line for line in shown.splitlines() if line.startswith("can: ")]
        word = words[-1].split()[1 + len(shown) % (len(words[-1].split()) - 1)] if words else "none"
        return Message("assistant", tool_calls=(ToolCall("act", {"action": word}, "call_1"),))

    for game in ("town", "errand"):
        task = arcade(games=[game], held=[]).tasks("test")[1]
        here = await play(task, modular(modules=ALL), scripted(answer))
        there = await play(task, modular(modules=ALL, server=server), scripted(answer))
        assert contexts(here) == contexts(there)
        assert here.episodes[0].reward == there.episodes[0].reward
        assert any("skills: " in prompt for prompt, _ in contexts(there))


async def test_a_module_server_says_what_is_wrong():
    mcp = pytest.importorskip("mcp")
    from etude.apps.serve.modules import server

    async with mcp.Client(server(), mode="legacy") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["observe", "prompt", "respond"]
        for name, given, told in (
            ("prompt", {"module": "plan"}, "no module 'plan'"),
            ("observe", {"text": "x"}, "no tool 'observe' with arguments ['text']"),
        ):
            result = await client.call_tool(name, given)
            assert result.is_error
            assert told in result.content[0].text
