"""Episodes side by side: what they share, how they end, whose fault a failure is, and the same numbers every time."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from etude.agents.loops import native
from etude.core.errors import EnvironmentFault, PolicyError
from etude.policies import scripted
from etude.protocols import Action, Observation, Sampling, Step, Task
from etude.rollout.collect import collect
from etude.trajectory import Boundary, Message, StopReason, ToolCall

from ..engine_fixtures import GET, MARKING, Talk, TalkSession

SHORT = Sampling(max_tokens=6)  # cuts most answers
WHOLE = Sampling(max_tokens=100)  # cuts none
CALL = Message("assistant", "", (ToolCall("get", {"id": "x"}),))
ANSWER = Message("assistant", "the mat")


def play(policy, world, count=1, **settings):
    return collect(policy, world.tasks("train", count), **{"agent": native(), **settings})


class Session(TalkSession):
    """Does what the world's `on` says in the place of one of the methods."""

    async def reset(self, task, seed):
        await self.world.do("reset")
        return await super().reset(task, seed)

    async def step(self, action):
        await self.world.do("call" if action.tool_calls else "step")
        return await super().step(action)

    async def close(self):
        await super().close()
        await self.world.do("close")


class World(Talk):
    """Talk, whose session does something of its own at one moment: on={"step": function}."""

    def __init__(self, on=None, **settings):
        super().__init__(**settings)
        self.on = on or {}

    async def do(self, moment: str) -> None:
        result = self.on.get(moment, lambda: None)()
        if asyncio.iscoroutine(result):
            await result

    def open(self) -> TalkSession:
        if "open" in self.on:
            self.on["open"]()
        return Session(self)


def fails(error: Exception):
    def fail():
        raise error

    return fail


class Judging(TalkSession):
    """Says with its last step how it came to its verdict."""

    async def step(self, action):
        step = await super().step(action)
        return replace(step, info={"scores": {"state": 0.5}, "limit": "none"}) if step.done else step


async def test_the_parts_of_a_verdict_are_kept_in_the_episodes_scores():
    world = Talk()
    world.open = lambda: Judging(world)
    (made,) = await play(scripted([CALL, ANSWER]), world)
    assert made.episodes[0].scores == {"state": 0.5}
    assert made.episodes[0].score == made.episodes[0].reward  # it is no scorer


# -- what a group shares -------------------------------------------------------------------------------------------


async def test_a_group_shares_its_prompt_and_nothing_else(policy):
    (trajectory,) = await play(policy, Talk(turns=2), group=4, sampling=WHOLE)
    trajectory.check()
    paths = [trajectory.path(e.leaf) for e in trajectory.episodes]
    assert [p[:2] for p in paths] == [[0, 1]] * 4
    assert len({n for p in paths for n in p[2:]}) == sum(len(p) - 2 for p in paths)
    assert len(trajectory.messages) == len(trajectory.nodes), "each message is stored once"
    assert [m.content for m in trajectory.messages[:2]] == ["be a cat", "the cat 0"]
    assert all(trajectory.nodes[n].ids_T is not None for p in paths for n in p)
    assert trajectory.id == "talk-0*4"


async def test_the_ids_of_a_path_are_what_the_model_saw(policy):
    (trajectory,) = await play(policy, Talk(turns=3), group=3, sampling=WHOLE)
    for episode in trajectory.episodes:
        path = trajectory.path(episode.leaf)
        ids_P, mask_P = trajectory.ids_P(episode.leaf), np.concatenate([trajectory.nodes[n].sampled_T for n in path])
        nodes = [trajectory.nodes[n] for n in path]
        recorded = [np.full(len(n.ids_T), np.nan) if n.logprob_T is None else n.logprob_T for n in nodes]
        recorded_P = np.concatenate(recorded)
        np.testing.assert_array_equal(~np.isnan(recorded_P), mask_P)
        own_P = (await policy.logprobs([ids_P], [0]))[0]
        np.testing.assert_allclose(recorded_P[mask_P], own_P[mask_P], atol=1e-5)
        assert episode.tokens_sampled == mask_P.sum()


async def test_a_group_s_prompt_and_a_dialogue_s_turns_are_computed_once(policy):
    (trajectory,) = await play(policy, Talk(turns=4), group=8, sampling=WHOLE)
    given = [len(n.ids_T) - n.sampled_T.sum() for n in trajectory.nodes]  # by the template and the world
    header = next(given[n] for n, node in enumerate(trajectory.nodes) if node.version is not None)
    counters = policy.generator.counters
    # The prompt once, and its last token for each of the seven others to go on from; in later turns what the world
    # said, the header, and the answer's last token, which nothing had to be computed from until then.
    assert counters.prefilled == sum(given[:2]) + header + 7 + (sum(given[2:]) - 8 * header) + 8 * 3
    assert counters.sampled == sum(e.tokens_sampled for e in trajectory.episodes)


async def test_tokens_computed_grow_linearly_with_turns(policy):
    computed = {}
    for turns in (2, 4, 8):
        before = policy.generator.counters.prefilled
        made = await play(policy, Talk(turns=turns), count=8, sampling=WHOLE)
        assert [e.turns for t in made for e in t.episodes] == [turns] * 8
        computed[turns] = policy.generator.counters.prefilled - before
    # every turn brings the same number of tokens, however much was said before it
    assert computed[8] - computed[4] == 2 * (computed[4] - computed[2]) > 0


async def test_words_of_an_assistant_that_a_world_shows_are_not_the_policy_s(policy):
    class Shown(TalkSession):
        async def reset(self, task, seed):
            first = await super().reset(task, seed)
            return Observation((*first.messages, Message("assistant", "for example"), Message("user", "now you")))

    world = Talk()
    world.open = lambda: Shown(world)
    (trajectory,) = await play(policy, world, sampling=WHOLE)
    trajectory.weigh([1.0])
    weighted = [n for n, node in enumerate(trajectory.nodes) if node.weight_T is not None]
    assert weighted == [trajectory.episodes[0].leaf]


async def test_where_the_template_rewrites_history_everything_sampled_is_still_trained_once(load_policy):
    from etude.training.learner import rows

    policy = load_policy(MARKING)
    (trajectory,) = await play(policy, Talk(turns=3), group=2, sampling=WHOLE)
    trajectory.check()
    assert all(len(e.rewritten) == 2 for e in trajectory.episodes)
    for episode in trajectory.episodes:
        old = [n for leaf in episode.rewritten for n in trajectory.path(leaf)]
        assert sum(trajectory.nodes[n].sampled for n in set(old)) == 2
        shown = policy.renderer.decode(trajectory.ids_P(episode.leaf))
        last = trajectory.messages[trajectory.nodes[episode.leaf].message].content
        assert shown.startswith(policy.renderer.text(trajectory.dialogue(episode.leaf)[:-1], generate=True))
        assert last in shown
    trajectory.weigh([1.0, 1.0])
    sampled = sorted(tuple(n.ids_T[n.sampled_T]) for n in trajectory.nodes if n.version is not None)
    assert len(sampled) == 6
    assert sorted(tuple(r.ids_P[r.mask_P]) for r in rows([trajectory])) == sampled
    assert sum(e.tokens_sampled for e in trajectory.episodes) == sum(map(len, sampled))


async def test_an_agent_may_end_an_answer_at_a_text_and_the_dialogue_goes_on_whole(policy):
    async def interrupting(run, first):
        run.observe(*first.messages)
        while not run.over:
            action = await run.act(stop=("e", "a"))
            step = await run.step(action.message)
            run.observe(*step.observation.messages)

    (stop,) = policy.renderer.stop_ids
    trajectories = await play(policy, Talk(turns=4), 4, sampling=WHOLE, agent=interrupting)
    stopped = 0
    for trajectory in trajectories:
        (episode,) = trajectory.episodes
        assert episode.stop is StopReason.ANSWERED
        leaf, header_T = policy.renderer.generation_prompt(trajectory, episode.leaf)
        path = trajectory.path(leaf)
        following = [*(trajectory.nodes[n].ids_T for n in path[1:]), header_T]
        for n, next_T in zip(path, following, strict=True):
            if (node := trajectory.nodes[n]).sampled:
                text = policy.renderer.decode(node.ids_T[node.sampled_T]).removesuffix("<|im_end|>")
                stopped += (by_text := any(c in text for c in "ea"))
                # the stop token that was not sampled follows as context, as it does in every other rendering
                assert (node.ids_T[-1] == stop, next_T[0] == stop) == (not by_text, by_text)
        seen_P = np.concatenate([trajectory.ids_P(leaf), header_T])
        assert (seen_P == stop).sum() == len(path)
    assert stopped > 4


# -- the same every time -------------------------------------------------------------------------------------------


def raw(array: np.ndarray | None) -> bytes | None:
    return None if array is None else array.tobytes()


def facts(trajectories):
    nodes = [n for t in trajectories for n in t.nodes]
    tokens = [(n.parent, n.message, n.version, raw(n.ids_T), raw(n.sampled_T), raw(n.logprob_T)) for n in nodes]
    return tokens, [(e.leaf, e.reward, e.stop, e.seed, e.turns) for t in trajectories for e in t.episodes]


async def test_64_episodes_twice_are_bit_identical(load_policy):
    world = Talk(turns=3, score=lambda text: len(text) / 1000)
    first = await play(load_policy(), world, 16, group=4, sampling=WHOLE, seed=5)
    again = await play(load_policy(), world, 16, group=4, sampling=WHOLE, seed=5)
    assert facts(first) == facts(again)
    assert sum(len(t.episodes) for t in first) == 64
    assert world.closed == 128
    assert all(e.failure is None and e.reward is not None for t in first for e in t.episodes)
    other = await play(load_policy(), world, 16, group=4, sampling=WHOLE, seed=6)
    assert facts(first) != facts(other)


async def test_what_was_played_before_changes_no_bit(load_policy):
    world = Talk(turns=3, score=lambda text: len(text) / 1000)
    fresh, used = load_policy(), load_policy()
    expected = await play(fresh, world, 4, group=2, sampling=WHOLE, seed=5)
    await play(used, world, 4, group=2, sampling=WHOLE, seed=5)
    before = used.generator.counters.prefilled
    assert facts(await play(used, world, 4, group=2, sampling=WHOLE, seed=5)) == facts(expected)
    # the same prompts were computed, not taken from the cache, so a resumed run makes the same batches
    assert used.generator.counters.prefilled - before == fresh.generator.counters.prefilled == before


async def test_members_of_a_group_and_turns_draw_different_numbers():
    class Seeds:
        name, version, seen = "seeds", 0, []

        async def act(self, trajectory, leaf, *, sampling, seed):
            self.seen.append(seed)
            return leaf, Action(ANSWER)

    await play(Seeds(), Talk(turns=5), 3, group=4)
    assert len(set(Seeds.seen)) == 3 * 4 * 5


async def test_context_is_not_mistaken_for_what_another_member_said():
    turn = iter([True, False])

    async def shows_or_says(run, first):
        run.observe(*first.messages)
        if next(turn):
            await run.act()
        else:
            run.observe(ANSWER)

    (t,) = await play(scripted([ANSWER]), Talk(), group=2, agent=shows_or_says)
    said, shown = (t.nodes[e.leaf] for e in t.episodes)
    assert said.sampled
    assert not shown.sampled


async def test_results_come_in_the_order_of_the_tasks():
    delays = iter([0.03, 0.02, 0.01, 0.0])
    world, finished = World({"reset": lambda: asyncio.sleep(next(delays))}), []
    trajectories = await play(
        scripted(lambda dialogue: ANSWER), world, 4, name="a/", on_episode=lambda: finished.append(1)
    )
    assert [(t.id, t.task, t.environment, t.split) for t in trajectories] == [
        (f"a/talk-{i}", f"talk-{i}", "talk", "train") for i in range(4)
    ]
    assert [t.messages[1].content for t in trajectories] == [f"the cat {i}" for i in range(4)]
    assert len(finished) == 4


@pytest.mark.parametrize(("group", "ids"), [(1, ["a", "b", "a~2", "a~3"]), (2, ["a*2", "b*2", "a*2~2", "a*2~3"])])
async def test_a_task_that_is_played_again_has_another_id(group, ids):
    tasks = [Task(name, Talk(), data={"prompt": "the cat"}) for name in "abaa"]
    played = await collect(scripted(lambda dialogue: ANSWER), tasks, agent=native(), group=group, name="x/")
    assert [t.id for t in played] == [f"x/{id}" for id in ids]
    assert [t.task for t in played] == list("abaa")
    assert len({e.seed for t in played for e in t.episodes}) == 4 * group


async def test_no_more_than_concurrency_are_open_at_once():
    running, most = [0], [0]

    async def enter():
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0.001)

    def leave():
        running[0] -= 1

    world = World({"reset": enter, "close": leave})
    await play(scripted([ANSWER]), world, 9, concurrency=3)
    assert most[0] == 3
    world.at_once, most[0] = 2, 0  # the world's own bound
    await play(scripted([ANSWER]), world, 9, concurrency=3)
    assert most[0] == 2


# -- how an episode ends -------------------------------------------------------------------------------------------


async def test_an_answer_ends_it_with_the_world_s_verdict():
    (t,) = await play(scripted([CALL, ANSWER]), Talk(score=lambda text: float("mat" in text), turns=2, tools=(GET,)))
    (e,) = t.episodes
    assert (e.stop, e.reward, e.score, e.turns, e.failure) == (StopReason.ANSWERED, 1.0, 1.0, 2, None)
    assert t.tools == [GET]
    assert t.nodes[e.leaf].reward == 1.0
    assert [m.role for m in t.dialogue(e.leaf)] == ["system", "user", "assistant", "tool", "assistant"]


def judging(verdict):
    class Judging(TalkSession):
        def current_reward(self):
            return verdict(self)

    world = Talk(turns=99)
    world.open = lambda: Judging(world)
    return world


async def later(value: float) -> float:
    await asyncio.sleep(0)
    return value


@pytest.mark.parametrize(
    "verdict", [lambda s: len(s.said) / 10, lambda s: later(len(s.said) / 10)], ids=["at once", "to be awaited"]
)
async def test_a_world_judges_what_the_limit_on_turns_cut(verdict):
    (t,) = await play(scripted(lambda dialogue: ANSWER), judging(verdict), max_turns=3)
    (e,) = t.episodes
    assert (e.stop, e.turns, e.reward, e.failure) == (StopReason.TURNS, 3, 0.3, None)


async def test_desk_and_functions_of_one_s_own_judge_the_state_that_the_limit_left():
    import etude

    @etude.tool
    def put(state: dict, on: str) -> str:
        """Put it somewhere."""
        state["on"] = on
        return "done"

    rows = [{"id": "x", "prompt": "Put it on the mat.", "split": "train"}]
    own = etude.world(
        tools=[put],
        tasks=rows,
        setup=lambda row: {"on": ""},
        score=lambda state, answer, row: float(state["on"] == "mat"),
        solve=lambda row: [ToolCall("put", {"on": "cat"}), ToolCall("put", {"on": "mat"}), "Done."],
    )
    for world in (own, etude.world("desk", difficulty=2)):
        task, said = next((t, said) for t in world.tasks("train") if len(said := world.solve(t, 0)) > 2)
        for turns, reward in ((len(said) - 1, 1.0), (len(said) - 2, 0.0)):  # all calls but no answer; a call too few
            (t,) = await collect(scripted(said), [task], agent=native(), max_turns=turns)
            assert (t.episodes[0].stop, t.episodes[0].reward) == (StopReason.TURNS, reward)


async def test_a_world_that_cannot_judge_what_was_cut_gives_nothing():
    (t,) = await play(scripted(lambda dialogue: ANSWER), Talk(turns=99, score=lambda text: 1.0), max_turns=2)
    assert (t.episodes[0].stop, t.episodes[0].reward, t.episodes[0].failure) == (StopReason.TURNS, 0.0, None)


async def test_the_last_allowed_turn_may_still_finish():
    (t,) = await play(scripted([CALL, ANSWER]), Talk(turns=2, score=lambda text: 1.0), max_turns=2)
    assert (t.episodes[0].stop, t.episodes[0].reward) == (StopReason.ANSWERED, 1.0)


async def test_an_answer_cut_at_its_length_ends_the_episode_and_says_so(policy):
    policy.generator.stop_ids = frozenset()
    trajectories = await play(policy, Talk(turns=3, score=lambda text: 0.5), 3, sampling=SHORT)
    for (e,) in (t.episodes for t in trajectories):
        assert (e.stop, e.turns, e.tokens_sampled, e.failure) == (StopReason.TOKENS, 1, 6, None)
    (t,) = await play(policy, Talk(turns=1, score=lambda text: 0.5), sampling=SHORT)
    assert (t.episodes[0].stop, t.episodes[0].reward) == (StopReason.TOKENS, 0.5), "judged, and marked"


async def test_a_full_context_ends_the_episode_without_failing_it(load_policy):
    policy = load_policy(context=70)
    policy.generator.stop_ids = frozenset({policy.renderer.encode("a")[0], *policy.renderer.stop_ids})
    trajectories = await play(policy, Talk(turns=50), 4, sampling=Sampling(max_tokens=30), max_turns=50)
    for t in trajectories:
        (e,) = t.episodes
        assert (e.stop, e.failure) == (StopReason.TOKENS, None)
        assert len(t.ids_P(e.leaf)) <= 70 + 16  # at most the next question's template beyond it
        t.check()


async def test_an_agent_that_leaves_by_itself_has_answered():
    async def speaks_once(run, first):
        run.observe(*first.messages)
        await run.act()

    (t,) = await play(scripted([ANSWER]), Talk(), agent=speaks_once)
    assert (t.episodes[0].stop, t.episodes[0].failure) == (StopReason.ANSWERED, None)


# -- whose fault ---------------------------------------------------------------------------------------------------


class Broken:
    """A policy that raises, whatever its kind of error."""

    name, version = "broken", 0

    def __init__(self, error):
        self.error = error

    async def act(self, trajectory, leaf, *, sampling, seed):
        raise self.error


async def raising_agent(run, first):
    run.observe(*first.messages)
    raise KeyError("plan")


class BadScorer:
    range = (0.0, 1.0)

    async def __call__(self, trajectory, episode):
        raise ValueError("no key")


FINE = scripted([CALL, ANSWER])
FAULT = EnvironmentFault("disk full")
FAILURES = [  # boundary, error, what is done
    (Boundary.MODEL, "PolicyError: gone", {"policy": Broken(PolicyError("gone"))}),
    (Boundary.MODEL, "RuntimeError: CUDA", {"policy": Broken(RuntimeError("CUDA"))}),
    (Boundary.MODEL, "PolicyError: trajectory talk-0: turn 1", {"policy": scripted([])}),
    (Boundary.AGENT, "KeyError: 'plan'", {"agent": raising_agent}),
    (Boundary.ENVIRONMENT, "EnvironmentFault: disk full", {"on": {"open": fails(FAULT)}}),
    (Boundary.ENVIRONMENT, "EnvironmentFault: disk full", {"on": {"reset": fails(FAULT)}}),
    (Boundary.ENVIRONMENT, "ValueError: bug", {"on": {"call": fails(ValueError("bug"))}}),
    (Boundary.ENVIRONMENT, "EnvironmentFault: disk full", {"on": {"step": fails(FAULT)}}),
    (Boundary.ENVIRONMENT, "TimeoutError: read", {"on": {"step": fails(TimeoutError("read"))}}),
    (Boundary.TOOL, "EnvironmentFault: disk full", {"on": {"call": fails(FAULT)}}),
    (Boundary.SCORER, "ValueError: no key", {"scorers": [BadScorer()]}),
    (Boundary.TIME, "the episode took over 0.05 s", {"on": {"step": lambda: asyncio.sleep(5)}, "seconds": 0.05}),
]


@pytest.mark.parametrize(("boundary", "error", "how"), FAILURES, ids=str)
async def test_a_failure_is_kept_with_its_boundary_and_without_reward(boundary, error, how):
    how = dict(how)
    world, policy = World(how.pop("on", None), turns=2, score=lambda text: 1.0), how.pop("policy", FINE)
    (trajectory,) = await play(policy, world, **how)
    trajectory.check()
    (e,) = trajectory.episodes
    assert e.failure is not None
    assert e.failure.boundary is boundary
    assert e.failure.error.startswith(error)
    assert (e.reward, e.score) == (None, None)
    assert e.stop is (StopReason.TIME if boundary is Boundary.TIME else StopReason.FAILED)
    assert np.isnan(trajectory.score_G).all()
    assert world.closed == ("open" not in world.on)


async def test_a_failing_verdict_is_the_environment_s_fault():
    (t,) = await play(FINE, judging(lambda session: 1 / 0), max_turns=1)
    assert t.episodes[0].failure.boundary is Boundary.ENVIRONMENT
    assert t.episodes[0].failure.error.startswith("ZeroDivisionError")


async def test_one_failure_leaves_the_others_alone():
    fates = iter([None, FAULT, None, ValueError("x"), None])

    def maybe():
        error = next(fates)
        if error:
            raise error

    trajectories = await play(FINE, World({"step": maybe}, turns=2, score=lambda text: 1.0), 5)
    assert [t.episodes[0].reward for t in trajectories] == [1.0, None, 1.0, None, 1.0]
    assert [len(t.dialogue(t.episodes[0].leaf)) for t in trajectories] == [5] * 5, "what was said is kept"


async def test_failed_members_of_a_group_get_no_weight(policy):
    fates = iter([True, False, True, False])

    def maybe():
        if not next(fates):
            raise FAULT

    world = World({"step": maybe}, score=lambda text: len(text) / 100)
    (t,) = await play(policy, world, group=4, sampling=SHORT)
    fine = [e.failure is None for e in t.episodes]
    assert sum(fine) == 2
    t.weigh(t.score_G - np.nanmean(t.score_G))
    assert [t.nodes[e.leaf].weight_T is not None for e in t.episodes] == fine


async def test_closing_must_not_hide_how_it_went():
    (t,) = await play(FINE, World({"close": fails(RuntimeError("x"))}, turns=2, score=lambda text: 1.0))
    assert (t.episodes[0].reward, t.episodes[0].failure) == (1.0, None)


async def test_a_time_limit_frees_the_decoder(policy):
    policy.generator.stop_ids = frozenset()
    trajectories = await play(policy, Talk(), 3, sampling=Sampling(max_tokens=100_000), seconds=0.02)
    assert {t.episodes[0].failure.boundary for t in trajectories} == {Boundary.TIME}
    (t,) = await play(policy, Talk(), sampling=SHORT)
    assert t.episodes[0].failure is None
    assert policy.generator.live == 0


# -- scores --------------------------------------------------------------------------------------------------------


class Fixed:
    range = (0.0, 1.0)

    def __init__(self, value):
        self.value = value

    async def __call__(self, trajectory, episode):
        assert episode.reward is not None
        return self.value


class Bounded(Fixed):
    range = (-1.0, 2.0)


async def test_the_score_is_the_sum_of_the_scorers():
    (t,) = await play(FINE, Talk(turns=2, score=lambda text: 1.0), scorers=[Fixed(0.25), Fixed(0.5)])
    (e,) = t.episodes
    assert (e.reward, e.score, e.scores) == (1.0, 0.75, {"Fixed": 0.75})


class Ranked:
    """Compares the episodes of a group by their seeds."""

    range = (0.0, 2.0)

    async def compare(self, trajectory, episodes):
        assert all(episode.reward is not None for episode in episodes)
        order = sorted(episode.seed for episode in episodes)
        return [float(order.index(episode.seed)) for episode in episodes]


@pytest.mark.parametrize("value", [-1.0, 0.0, 2.0])
async def test_a_score_in_range_counts(value):
    (t,) = await play(FINE, Talk(turns=1), scorers=[Bounded(value)])
    assert (t.episodes[0].score, t.episodes[0].failure) == (value, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2.001, -1.5])
async def test_nan_infinity_and_out_of_range_are_the_scorers_failure(value):
    (t,) = await play(FINE, Talk(turns=1), scorers=[Bounded(value)])
    episode = t.episodes[0]
    assert (episode.score, episode.reward, episode.stop) == (None, None, StopReason.FAILED)
    assert episode.failure is not None
    assert episode.failure.boundary is Boundary.SCORER
    assert f"ScoreError: scorer Bounded gave {value}, no finite number in [-1.0, 2.0]" in episode.failure.error


async def test_a_scorer_may_compare_the_group():
    scorers = [Fixed(0.25), Ranked()]
    (t,) = await play(FINE, Talk(turns=2, score=lambda text: 1.0), group=3, scorers=scorers)
    assert sorted(e.score for e in t.episodes) == [0.25, 1.25, 2.25]
    assert [e.scores for e in t.episodes] == [{"Fixed": 0.25, "Ranked": e.score - 0.25} for e in t.episodes]


async def test_failed_episodes_are_not_compared():
    class Some:
        calls = 0
        range = (0.0, 1.0)

        async def __call__(self, trajectory, episode):
            Some.calls += 1
            if Some.calls == 2:
                raise ValueError("no key")
            return 0.0

    (t,) = await play(FINE, Talk(turns=2, score=lambda text: 1.0), group=3, scorers=[Some(), Ranked()])
    assert sorted(e.score for e in t.episodes if e.failure is None) == [0.0, 1.0]
    assert sum(e.failure is not None for e in t.episodes) == 1


@pytest.mark.parametrize("scores", [ValueError("no verdict"), [0.5]])
async def test_a_comparison_that_fails_fails_its_group(scores):
    class Broken(Ranked):
        async def compare(self, trajectory, episodes):
            if isinstance(scores, Exception):
                raise scores
            return scores

    (t,) = await play(FINE, Talk(turns=2, score=lambda text: 1.0), group=2, scorers=[Fixed(0.25), Broken()])
    assert [(e.failure.boundary, e.score, e.reward) for e in t.episodes] == [(Boundary.SCORER, None, None)] * 2


async def test_a_judge_that_is_a_local_model_gets_its_decoder(policy):
    class Judged(Fixed):
        async def __call__(self, trajectory, episode):
            assert self.policy.generator is not None
            return self.value

    scorer = Judged(0.5)
    scorer.policy = policy
    policy.generator = None
    (t,) = await play(FINE, Talk(turns=2, score=lambda text: 1.0), scorers=[scorer])
    assert t.episodes[0].score == 0.5


async def test_a_malformed_call_is_marked_on_its_node():
    class Malformed:
        name, version = "malformed", 0

        async def act(self, trajectory, leaf, *, sampling, seed):
            first = not any(node.sampled for node in trajectory.nodes)
            return leaf, Action(Message("assistant", "x"), problem="tool call 1 is not valid JSON" if first else "")

    (t,) = await play(Malformed(), Talk())
    assert [n.scores for n in t.nodes if n.sampled] == [{"malformed": 1.0}, {}]
    assert t.episodes[0].turns == 2


async def test_rewards_of_steps_add_up_and_stay_on_their_nodes():
    class Paying(TalkSession):
        async def step(self, action):
            step = await super().step(action)
            return Step(step.observation, step.done, 0.25)

    world = Talk(turns=3)
    world.open = lambda: Paying(world)
    (t,) = await play(scripted(lambda dialogue: ANSWER), world)
    assert t.episodes[0].reward == 0.75
    assert [n.reward for n in t.nodes if n.sampled] == [0.25] * 3


def test_a_policy_without_weights_needs_no_torch():
    code = "import sys, etude.rollout.collect as c; c.attach(object()); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
