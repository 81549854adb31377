"""Concurrent episodes: policy x agent x environment -> trajectories.

Every episode is a coroutine; those of one task share one trajectory, so that a group's prompt is stored once. An
episode that fails is kept with the boundary where it failed and has no reward; it never becomes reward 0.
"""

import asyncio
import contextlib
import inspect
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.core.errors import EnvironmentFault, ScoreError
from etude.protocols import Action, Agent, Comparer, Policy, Sampling, Scorer, Session, Step, Task
from etude.trajectory import Boundary, Episode, Failure, Message, StopReason, Trajectory

if TYPE_CHECKING:
    from etude.rollout.generator import Generator


class _Failed(Exception):
    """Carries the boundary of a failure up through the agent's loop."""

    def __init__(self, boundary: Boundary, error: Exception):
        super().__init__(str(error))
        self.failure = Failure(boundary, f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _boundary(boundary: Boundary) -> Iterator[None]:
    """What goes wrong inside is a failure at this boundary, unless one further in has claimed it."""
    try:
        yield
    except _Failed:
        raise
    except Exception as error:
        raise _Failed(boundary, error) from error


class EpisodeRun:
    """One episode while it runs; see protocols.Run for what an agent may do with it."""

    def __init__(
        self,
        trajectory: Trajectory,
        policy: Policy,
        session: Session,
        episode: Episode,
        sampling: Sampling,
        max_turns: int,
    ):
        self.trajectory, self.policy, self.session, self.episode = trajectory, policy, session, episode
        self.sampling, self.max_turns = sampling, max_turns
        self.tools = session.tools
        self.over = False
        self.leaf: int | None = None
        self.rewards: list[float] = []

    def observe(self, *messages: Message) -> None:
        """Append messages, or go along an existing branch that starts with the same ones."""
        if self.leaf is None and not self.trajectory.nodes:
            self.trajectory.tools = list(self.tools)
        for message in messages:
            shared = self._shared(message)
            self.leaf = self.trajectory.add(message, self.leaf) if shared is None else shared

    def _shared(self, message: Message) -> int | None:
        """A node below the leaf that holds this very message as context, from another episode of the group."""
        for n, node in enumerate(self.trajectory.nodes):
            if node.parent == self.leaf and not node.sampled and self.trajectory.messages[node.message] == message:
                return n
        return None

    def anew(self) -> None:
        if self.leaf is not None:
            self.episode.rewritten.append(self.leaf)
            self.leaf = None

    async def act(self, **changes: Any) -> Action:
        seed = int(np.random.SeedSequence([self.episode.seed, self.episode.turns]).generate_state(1, np.uint64)[0])
        sampling = replace(self.sampling, **changes)
        with _boundary(Boundary.MODEL):
            leaf, action = await self.policy.act(self.trajectory, self.leaf, sampling=sampling, seed=seed)
        if leaf != self.leaf and self.leaf is not None:
            self.episode.rewritten.append(self.leaf)
        node: dict[str, Any] = {"version": action.version, "action": action.array}
        if action.ids_T is not None and action.prompt_ids_T is not None:
            unsampled = len(action.prompt_ids_T)
            node["ids_T"] = np.concatenate([action.prompt_ids_T, action.ids_T])
            own_T = np.ones(len(action.ids_T), bool) if action.own_T is None else action.own_T
            node["sampled_T"] = np.concatenate([np.zeros(unsampled, bool), own_T])
            if action.logprob_T is not None:
                node["logprob_T"] = np.concatenate([np.full(unsampled, np.nan, np.float32), action.logprob_T])
        if action.problem:
            node["scores"] = {"malformed": 1.0}
        self.leaf = self.trajectory.add(action.message, leaf, **node)
        self.episode.turns += 1
        self.episode.tokens_sampled += 0 if action.ids_T is None else len(action.ids_T)
        if action.truncated:
            self._end(StopReason.TOKENS)
        elif self.episode.turns >= self.max_turns:
            self._end(StopReason.TURNS)
        return action

    async def step(self, message: Message) -> Step:
        with _boundary(Boundary.ENVIRONMENT):
            try:
                step = await self.session.step(message)
            except EnvironmentFault as error:
                if message.tool_calls:
                    raise _Failed(Boundary.TOOL, error) from error
                raise
        if step.reward is not None:
            self.rewards.append(step.reward)
            if self.leaf is not None:
                self.trajectory.nodes[self.leaf].reward = step.reward
        self.episode.scores |= step.info.get("scores", {})
        if step.done:
            self._end(StopReason.DONE if message.tool_calls else StopReason.ANSWERED)
        return step

    def _end(self, reason: StopReason) -> None:
        self.over = True
        if self.episode.stop is not StopReason.TOKENS or reason is StopReason.DONE:  # half an answer is none
            self.episode.stop = reason


async def collect(
    policy: Policy,
    tasks: Sequence[Task],
    *,
    agent: Agent,
    group: int = 1,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    concurrency: int = 32,
    max_turns: int = 8,
    seconds: float = 600.0,
    scorers: Sequence[Scorer | Comparer] = (),
    name: str = "",
    begun: list[Trajectory] | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> list[Trajectory]:
    """Play `group` episodes of each task; one trajectory per task, in the order of the tasks.

    seed: with the task's place and the episode's number it fixes all that is random.
    concurrency: episodes at once, fewer in a world that says so (`at_once`).
    max_turns: most answers of the policy in one episode. An episode cut there is judged by the state it is in, or has
        reward 0 where the session has no `current_reward`.
    seconds: most time of one episode.
    scorers: their sum is the episode's score; without any, the score is the reward.
    name: beginning of the trajectories' ids; after it comes the task's, and `~2` where the task comes a second time.
    begun: what `begin` made for these tasks among others, to be played and returned; then group, seed and name are its.
    on_episode: called after each episode, for progress.
    """
    make_ready(policy, scorers, tasks)
    room = asyncio.Semaphore(concurrency)
    worlds = {id(task.environment): task.environment for task in tasks}
    # waiting for a worker of a world that has few would count against an episode's time
    rooms = {key: asyncio.Semaphore(getattr(world, "at_once", concurrency)) for key, world in worlds.items()}
    trajectories = begin(tasks, group=group, seed=seed, name=name) if begun is None else begun

    async def play(task: Task, trajectory: Trajectory, episode: Episode) -> None:
        async with rooms[id(task.environment)], room:
            await _play(policy, agent, task, trajectory, episode, sampling, max_turns, seconds, scorers)
        on_episode()

    decoder: Generator | None = getattr(policy, "generator", None)
    start, decoded = time.perf_counter(), decoder.counters.decoding if decoder else 0.0
    pairs = zip(tasks, trajectories, strict=True)
    await asyncio.gather(*(play(task, made, episode) for task, made in pairs for episode in made.episodes))
    await asyncio.gather(*(_compare(trajectory, scorers) for trajectory in trajectories))
    if decoder:
        decoder.counters.waiting += time.perf_counter() - start - (decoder.counters.decoding - decoded)
    return trajectories


def make_ready(policy: Policy, scorers: Sequence[Scorer | Comparer], tasks: Sequence[Task] = ()) -> None:
    """Give the policy, the scorers' judges and whoever speaks in the tasks' worlds their decoders, with nothing kept
    from earlier play."""
    judges = [getattr(scorer, "policy", None) for scorer in scorers]
    worlds = {id(task.environment): task.environment for task in tasks}.values()
    for world in worlds:
        if meet := getattr(world, "meet", None):
            meet(policy)
    speakers = [speaker for world in worlds for speaker in getattr(world, "speakers", ())]
    for model in (policy, *judges, *speakers):  # any of them may be a local model
        attach(model)
        generator: Generator | None = getattr(model, "generator", None)
        if generator is not None and not generator.live:
            # a beginning kept from earlier play changes how a prompt is batched, and so the last bits of its numbers: a
            # run that resumes here has none, and must sample the same
            generator.invalidate()


def begin(tasks: Sequence[Task], *, group: int, seed: int, name: str = "") -> list[Trajectory]:
    """A trajectory for each task, with the ids and seeds of its episodes, which are still to be played."""
    return [
        Trajectory(
            id=name + id,
            task=task.id,
            environment=task.environment.name,
            split=task.split,
            meta={"domain": task.domain, "difficulty": task.difficulty, "skills": list(task.skills)}
            | ({"answer": task.data["answer"]} if "answer" in task.data else {}),
            episodes=[
                Episode(leaf=0, seed=int(np.random.SeedSequence([seed, t, g]).generate_state(1)[0]))
                for g in range(group)
            ],
        )
        for t, (id, task) in enumerate(zip(_ids(tasks, group), tasks, strict=True))
    ]


def _ids(tasks: Sequence[Task], group: int) -> list[str]:
    """One id for each, different also where a task comes more than once."""
    plays: Counter[str] = Counter()
    ids = []
    for task in tasks:
        plays[task.id] += 1
        n = plays[task.id]
        ids.append(task.id + (f"*{group}" if group > 1 else "") + (f"~{n}" if n > 1 else ""))
    return ids


async def _play(
    policy: Policy,
    agent: Agent,
    task: Task,
    trajectory: Trajectory,
    episode: Episode,
    sampling: Sampling,
    max_turns: int,
    seconds: float,
    scorers: Sequence[Scorer | Comparer],
) -> None:
    generator: Generator | None = getattr(policy, "generator", None)
    start = time.monotonic()
    session: Session | None = None
    run: EpisodeRun | None = None
    try:
        with generator.episode() if generator else contextlib.nullcontext():
            async with asyncio.timeout(seconds):
                with _boundary(Boundary.ENVIRONMENT):
                    session = task.environment.open()
                    # every episode of a task starts in the same world: what differs is what the policy samples
                    first = await session.reset(task, seed=0)
                run = EpisodeRun(trajectory, policy, session, episode, sampling, max_turns)
                with _boundary(Boundary.AGENT):
                    await agent(run, first)
                with _boundary(Boundary.ENVIRONMENT):
                    episode.reward = await _final_reward(run, session)
        episode.stop = episode.stop or StopReason.ANSWERED  # the agent left by itself
    except TimeoutError:  # of the whole episode; any other was claimed by its boundary
        episode.stop, episode.failure = StopReason.TIME, Failure(Boundary.TIME, f"the episode took over {seconds:g} s")
    except _Failed as failed:
        episode.stop, episode.failure = StopReason.FAILED, failed.failure
    finally:
        with contextlib.suppress(Exception):  # closing must not hide how the episode went
            if session is not None:
                await session.close()
    episode.leaf = run.leaf if run and run.leaf is not None else empty_leaf(trajectory)
    episode.seconds = time.monotonic() - start
    if episode.failure is None:
        await _score(trajectory, episode, scorers)


async def _final_reward(run: EpisodeRun, session: Session) -> float:
    """Sum of the step rewards; a world that was cut before it judged is asked for its verdict on the state it is in."""
    if run.rewards:
        return float(sum(run.rewards))
    judge = getattr(session, "current_reward", None)
    reward = judge() if judge else 0.0
    return float(await reward if inspect.isawaitable(reward) else reward)


def empty_leaf(trajectory: Trajectory) -> int:
    """A place for an episode that failed before its first message."""
    return trajectory.add(Message("system", ""), None)


async def score(trajectory: Trajectory, scorers: Sequence[Scorer | Comparer]) -> None:
    """Score episodes that were played elsewhere, without scorers."""
    for episode in trajectory.episodes:
        if episode.failure is None:
            await _score(trajectory, episode, scorers)
    await _compare(trajectory, scorers)


async def _score(trajectory: Trajectory, episode: Episode, scorers: Sequence[Scorer | Comparer]) -> None:
    if not scorers:
        episode.score = episode.reward
        return
    try:
        episode.score = 0.0
        for scorer in scorers:
            if not isinstance(scorer, Comparer):
                _add(episode, scorer, await scorer(trajectory, episode))
    except Exception as error:
        _unscore(episode, error)


async def _compare(trajectory: Trajectory, scorers: Sequence[Scorer | Comparer]) -> None:
    """Add the scores that need the whole group. Where they cannot be had, each of its episodes failed there."""
    played = [episode for episode in trajectory.episodes if episode.failure is None]
    try:
        for scorer in scorers:
            if not isinstance(scorer, Comparer):
                continue
            for episode, score in zip(played, await scorer.compare(trajectory, played), strict=True):
                _add(episode, scorer, score)
    except Exception as error:
        for episode in played:
            _unscore(episode, error)


def _add(episode: Episode, scorer: Any, score: float) -> None:
    name, (low, high) = type(scorer).__name__, scorer.range
    if not math.isfinite(score) or not low <= score <= high:
        raise ScoreError(
            f"scorer {name} gave {score}, no finite number in [{low}, {high}]; mend it, or declare the range it has"
        )
    episode.scores[name] = episode.scores.get(name, 0.0) + score  # one scorer may be there with two settings
    episode.score = (episode.score or 0.0) + score


def _unscore(episode: Episode, error: Exception) -> None:
    episode.reward, episode.score, episode.stop = None, None, StopReason.FAILED
    episode.failure = Failure(Boundary.SCORER, f"{type(error).__name__}: {error}")


def attach(policy: Any) -> None:
    """Give a policy that holds a local model its decoder."""
    if not hasattr(policy, "generator") or policy.generator is not None:
        return
    if policy.engine == "vllm":
        from etude.rollout.vllm import VLLM

        policy.generator = VLLM(policy)
    else:
        from etude.rollout.generator import Generator
        from etude.rollout.grammar import Matchers

        stop_ids, vocabulary = policy.renderer.stop_ids, policy.model.get_output_embeddings().weight.shape[0]
        policy.generator = Generator(policy.model, stop_ids, context=policy.context)
        policy.generator.decode, policy.generator.lock = policy.renderer.decode, policy.lock
        policy.generator.matcher = Matchers(policy.renderer.tokenizer, stop_ids, vocabulary)
