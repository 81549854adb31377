"""What a recipe will take in time, memory and tokens, said before it runs.

The experts play some of the recipe's own tasks; their episodes, rendered for the policy, stand in for those that the
policy will play, and go through the recipe's own curation. So prompts have their real lengths, and a turn the expert's.
A policy may say more, and is then told more: `at most` is for one that fills `max_tokens` in each of `max_turns`. What
only a policy's own episodes can tell is taken from above: a filter on success keeps what the expert did, a guard never
ends a stage.
"""

import contextlib
import heapq
import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from etude.apps import measure
from etude.apps.stages import STAGES, fill, prepare
from etude.apps.tasks import draw, pool_of
from etude.apps.work import Work, model_of, script_of
from etude.core.errors import EtudeError
from etude.core.progress import stopping
from etude.core.recipe import Recipe
from etude.core.rundir import RunDirectory
from etude.protocols import SPLITS, Task
from etude.trajectory import Message, Trajectory, episodes

SAMPLE = 64  # tasks that the expert plays for each set
SLOTS = (1, 8, 32)  # conversations at once, at which the decoder is timed
ACTIVE = 32  # episodes that `rollout.collect` plays at once
LOSSES = {"prefilled": 15_000, "sampled": 1_800}  # of one loss report, see `evaluation.losses`
PROBE = {"prefilled": 3_500, "sampled": 1_152}  # once more, before
PROCESS = 500 << 20  # bytes of Python with torch and transformers
KEPT = 48  # conversations whose keys and values the decoder keeps


@dataclass
class Phase:
    """What one phase takes; tokens, seconds and bytes."""

    name: str
    episodes: int = 0
    prefilled: float = 0.0
    sampled: float = 0.0
    sampled_at_most: float = 0.0
    trained: float = 0.0
    computed: float = 0.0
    """In training: trained tokens and their context."""
    steps: int = 0
    seconds: float = 0.0
    seconds_at_most: float = 0.0
    memory: int = 0


@dataclass
class Plan:
    """A recipe's phases."""

    recipe: str
    phases: list[Phase]
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> Phase:
        """The sum; of memory the peak."""
        sums = {f.name: sum(getattr(p, f.name) for p in self.phases) for f in fields(Phase) if f.name != "name"}
        return Phase("all", **{**sums, "memory": max((p.memory for p in self.phases), default=0)})

    def to_json(self) -> dict[str, Any]:
        rows = [asdict(phase) for phase in self.phases]
        return {"recipe": self.recipe, "phases": rows, "total": asdict(self.total), "notes": self.notes}


def plan(recipe: Recipe, speed: Any = None) -> Plan:
    """Foretell a recipe; nothing of it is run or kept.

    speed: an `etude.apps.floors.Speed` of the recipe's policy; measured here, in some seconds, where it is None.
    """
    import asyncio

    from etude.apps.run import SCHEMA, _open, phases
    from etude.core import recipe as recipes

    resolved = recipes.resolve(recipe, SCHEMA)
    with tempfile.TemporaryDirectory() as place, RunDirectory(place, resolved) as directory, stopping() as stop:
        work = _open(resolved, directory, stop, {})
        model_of(work.policy)
        return asyncio.run(_plan(work, phases(resolved), speed))


async def _plan(work: Work, phases: Sequence[tuple[str, str, dict[str, Any]]], speed: Any) -> Plan:
    from etude.training.learner import prepare as choose

    weights = work.build("weights", work.recipe["weights"])
    choose(work.policy, weights)
    if speed is None:
        from etude.apps import floors

        speed = await floors.measure(work.policy, weights, SLOTS)
    found = Plan(work.recipe["name"], [])
    for i, (name, verb, options) in enumerate(phases):
        work.enter(i, name)
        foretell = Foretold(work, speed, Phase(name))
        await getattr(foretell, {"import": "import_"}.get(verb, verb))(**options)
        found.phases.append(foretell.phase)
        found.notes += [note for note in foretell.notes if note not in found.notes]
    return found


@dataclass
class Foretold:
    """Fills in one phase. A method for each stage, which takes the stage's options."""

    work: Work
    speed: Any
    phase: Phase
    notes: list[str] = field(default_factory=list)
    longest: int = 1
    """Tokens of the longest conversation of the phase."""

    # -- stages ----------------------------------------------------------------------------------------------------

    async def before(self, **options: Any) -> None:
        await self._measure(when="before", **(self.work.recipe["evaluate"] | options))

    async def after(self, **options: Any) -> None:
        await self._measure(when="after", **(self.work.recipe["evaluate"] | options))

    async def collect(self, *, by: str, episodes: int, group: int, split: str, keep: bool, **play: Any) -> None:
        count = -(-episodes // group)
        tasks = draw(self.work, pool_of(self.work, split), min(count, SAMPLE), stream=self.work.phase)
        played = await stand_ins(self.work, tasks, group)
        if by == "policy":
            self._play(played, count * group, **play)
            self._remember(training=False)
        else:
            self._spend(count * group * played.seconds)
            self.phase.episodes += count * group
        if keep:
            self.work.data.append(self.work.put(_repeated(played.trajectories, count)))

    async def branch(
        self, *, every: int, group: int, max_tokens: int, turns: int | None, max_turns: int, **_: Any
    ) -> None:
        """From every state of the data, whatever `of` says, as if nothing were played yet."""
        data = self.work.read_data()
        wanted = {trajectory.task for trajectory in data}
        tasks = [t for split in SPLITS for t in self.work.environment.tasks(split) if t.id in wanted][:SAMPLE]
        played = await stand_ins(self.work, tasks)
        states = sum(-(-len(turns) // every) for turns in played.turns) / len(played.turns)
        count = round(states * sum(len(t.episodes) for t in data)) * group
        self._play(played, count, max_tokens=max_tokens, max_turns=turns or max_turns)
        self.work.data.append(self.work.put(_repeated(played.trajectories, count)))

    async def evolve_weights(
        self, *, steps: int, population: int, tasks: int, split: str, max_tokens: int, max_turns: int, **_: Any
    ) -> None:
        chosen = draw(self.work, pool_of(self.work, split), min(tasks, SAMPLE), stream=(self.work.phase, 0))
        played = await stand_ins(self.work, chosen)
        self._play(played, steps * population * tasks, max_tokens=max_tokens, max_turns=max_turns)
        self._remember(training=True)

    async def import_(self, **options: Any) -> None:
        await self._really("import", options)

    async def curate(self, **options: Any) -> None:
        await self._really("curate", options)

    async def score(self, **_: Any) -> None:
        """Each episode is read once, as if by the policy; what a server's judge takes is not known."""
        data = self.work.read_data()
        self.phase.episodes = sum(len(t.episodes) for t in data)
        self._read(sum(len(t.ids_P(e.leaf)) for t in data for e in t.episodes))

    async def set_aside(self, **_: Any) -> None:
        self.work.data = []

    async def preflight(self, **options: Any) -> None:
        """Checks take no time to speak of."""

    async def train(self, *, objective: Any, epochs: int, batch: int, micro_tokens: int, **_: Any) -> None:
        from etude.training.offline import samples_of, steps_of

        minimised = self.work.build("objectives", objective)
        data = prepare(self.work, self.work.read_data())
        steps = steps_of(len(samples_of(data, minimised)), epochs=epochs, batch=batch)
        self._train(data, epochs, steps, minimised, micro_tokens)

    async def practise(
        self, *, steps: int, tasks: int, group: int, split: str, objective: Any, updates: int, guard: float,
        micro_tokens: int, temperature: float, max_tokens: int, max_turns: int, **rest: Any,
    ) -> None:  # fmt: skip
        minimised = self.work.build("objectives", objective)
        chosen = draw(self.work, pool_of(self.work, split), min(tasks, SAMPLE), stream=(self.work.phase, 0))
        played = await stand_ins(self.work, chosen, group)
        for _ in range(steps):
            self._play(played, tasks * group, max_tokens=max_tokens, max_turns=max_turns)
        data = _repeated(prepare(self.work, played.trajectories), tasks)
        self._train(data, steps * updates, steps * updates, minimised, micro_tokens)
        if guard:  # the first step's episodes are read again before each further one
            self._read((steps - 1) * group * tasks * played.row)

    async def iterate(
        self, *, rounds: int, tasks: int, group: int, split: str, objective: Any, epochs: int, batch: int,
        micro_tokens: int, max_tokens: int, max_turns: int, **rest: Any,
    ) -> None:  # fmt: skip
        minimised = self.work.build("objectives", objective)
        chosen = draw(self.work, pool_of(self.work, split), min(tasks, SAMPLE), stream=(self.work.phase, 0))
        played = await stand_ins(self.work, chosen, group)
        for _ in range(rounds):
            self._play(played, tasks * group, max_tokens=max_tokens, max_turns=max_turns)
        steps = rounds * epochs * -(-tasks * group // batch)
        data = _repeated(prepare(self.work, played.trajectories), tasks)
        self._train(data, rounds * epochs, steps, minimised, micro_tokens)

    # -- amounts ---------------------------------------------------------------------------------------------------

    async def _measure(self, *, when: str, tasks: int, split: str, domains: int, bfcl: int, losses: bool, samples: int,
                       max_tokens: int, max_turns: int, **_: Any) -> None:  # fmt: skip
        sets = measure.task_sets(self.work.environment, tasks, split, domains, bfcl)
        for label, chosen in sets.items():
            played = await stand_ins(self.work, chosen[:SAMPLE], samples)
            again = min(len(chosen), measure.OWN) if losses and label == "success" and when == "before" else 0
            for count in filter(None, (len(chosen) * samples, again)):
                self._play(played, count, max_tokens=max_tokens, max_turns=max_turns)
        for amounts in [LOSSES, PROBE][: losses * (1 + (when == "before"))]:
            self._read(amounts["prefilled"])
            self._sample(amounts["sampled"], amounts["sampled"], ACTIVE)
        self._remember(training=False)

    def _play(self, played: "Played", count: int, *, max_tokens: int, max_turns: int, **_: Any) -> None:
        """`count` episodes by the policy."""
        lengths = [sum(min(T, max_tokens) for T in turns[:max_turns]) for turns in played.turns]
        if played.guessed:
            lengths = [max_tokens * max_turns for _ in lengths]
            self.notes.append("no expert plays some of the tasks: answers there are taken to be as long as they may be")
        lengths = [lengths[i % len(lengths)] for i in range(count)]
        self.phase.episodes += count
        self.longest = max(self.longest, played.longest)
        self._read(played.prefilled * count)
        slots = max(1.0, sum(lengths) / makespan(lengths, ACTIVE))
        self._sample(sum(lengths), count * max_tokens * max_turns, slots)
        self._spend(count * played.seconds)

    def _train(self, data: Sequence[Trajectory], times: int, steps: int, objective: Any, micro_tokens: int) -> None:
        from etude.training.learner import rows

        chosen = rows(data)
        computed = times * sum(tree_tokens(t) for t in data)
        self.phase.trained += times * sum(int(row.mask_P.sum()) for row in chosen)
        self.phase.computed += computed
        self.phase.steps += steps
        needs = {name: name in objective.needs for name in ("reference", "entropy")}
        self._spend(self.speed.train * computed * (4 / 3 if needs["reference"] else 1) + self.speed.step * steps)
        longest = max((len(row.ids_P) for row in chosen), default=0)
        self._remember(training=True, rows=max(micro_tokens, longest), **needs)

    def _read(self, tokens: float) -> None:
        self.phase.prefilled += tokens
        self._spend(tokens * self.speed.prefill)

    def _sample(self, tokens: float, at_most: float, slots: float) -> None:
        """slots: conversations at once, in the mean; at most, all are filled to the end."""
        self.phase.sampled += tokens
        self.phase.sampled_at_most += at_most
        seconds = tokens / slots * self.speed.decode_step(slots)
        full = at_most / ACTIVE * self.speed.decode_step(ACTIVE)
        self._spend(seconds, max(seconds, full))

    def _spend(self, seconds: float, at_most: float | None = None) -> None:
        self.phase.seconds += seconds
        self.phase.seconds_at_most += seconds if at_most is None else at_most

    def _remember(self, **how: Any) -> None:
        self.phase.memory = max(self.phase.memory, peak_memory(self.work.policy, length=self.longest, **how))

    async def _really(self, verb: str, options: dict[str, Any]) -> None:
        """Run a stage that needs no model on the stand-ins. Where they are not what it looks for, all of them stay."""
        start = time.perf_counter()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                await STAGES[verb](self.work, **options)
        except EtudeError as error:
            self.notes.append(f"{self.phase.name} cannot be foretold and is left out of the plan: {error}")
        self._spend(time.perf_counter() - start)
        if verb == "curate":
            self.phase.episodes = sum(1 for _ in episodes(self.work.read_data()))


# -- episodes that stand in ----------------------------------------------------------------------------------------


@dataclass
class Played:
    """Episodes of an expert, or prompts with an empty answer where there is none."""

    trajectories: list[Trajectory]
    seconds: float
    """Of the world and of rendering, for each episode."""
    guessed: bool
    """Whether there was no expert."""
    prefilled: float = 0.0
    """Mean tokens of an episode that the decoder reads: what it does not share with an earlier one, nor sampled."""
    row: float = 0.0
    """Mean tokens of an episode."""
    longest: int = 0
    """Tokens of the longest."""
    turns: list[list[int]] = field(default_factory=list)
    """Sampled tokens of each turn of each episode."""


async def stand_ins(work: Work, tasks: Sequence[Task], group: int = 1) -> Played:
    """`group` episodes of each task by the environment's expert."""
    from etude.policies.scripted import scripted
    from etude.rollout.collect import collect

    start = time.perf_counter()
    try:
        said = script_of(work.agent)
        script = scripted({task.id: said(task.environment.solve(task, work.seed)) for task in tasks})  # type: ignore[attr-defined]
        guessed = False
    except (AttributeError, EtudeError):
        script, guessed = scripted(lambda dialogue: Message("assistant", "")), True
    made = await collect(
        script, tasks, agent=work.agent, group=group, max_turns=1 if guessed else 99, name=f"{work.name}/"
    )
    fill(work, made)
    played = Played(made, (time.perf_counter() - start) / (len(tasks) * group), guessed)
    _count(played)
    return played


def _count(played: Played) -> None:
    from etude.trajectory.forest import common

    read, rows, seen = [], [], []
    for trajectory in played.trajectories:
        for g, episode in enumerate(trajectory.episodes):
            turns, unread, length = list[int](), 0, 0
            for leaf in (*episode.rewritten, episode.leaf):
                nodes = [trajectory.nodes[n] for n in trajectory.path(leaf)]
                ids_P = trajectory.ids_P(leaf)
                said = [int(n.sampled_T.sum()) for n in nodes if n.sampled_T is not None and n.sampled_T.any()]
                first = int(np.argmax(np.concatenate([n.sampled_T for n in nodes if n.sampled_T is not None])))
                prompt = ids_P[:first]
                shared = first - 1 if g else max((common(prompt, other) for other in seen), default=0)
                unread += len(ids_P) - sum(said) - min(shared, first - 1)
                length += len(ids_P)
                played.longest = max(played.longest, len(ids_P))
                turns += said
                seen += [] if g else [prompt]
            read.append(unread)
            rows.append(length)
            played.turns.append(turns)
    played.prefilled, played.row = float(np.mean(read)), float(np.mean(rows))


def _repeated(trajectories: Sequence[Trajectory], count: int) -> list[Trajectory]:
    """As many as the recipe makes: those that were played, again and again under other ids."""
    laps = [(trajectories[i % len(trajectories)], i // len(trajectories)) for i in range(count)]
    return [replace(t, id=f"{t.id}*{lap}") if lap else t for t, lap in laps]


def tree_tokens(trajectory: Trajectory) -> int:
    """Tokens of a trajectory, what its episodes share counted once, as the learner computes it at best."""
    nodes = {n for episode in trajectory.episodes for n in trajectory.nodes_of(episode)}
    return sum(len(ids_T) for n in nodes if (ids_T := trajectory.nodes[n].ids_T) is not None)


def makespan(lengths: Sequence[int], slots: int) -> int:
    """Steps until all are decoded, each taking the first free slot in its turn.

    >>> makespan([4, 1, 2, 3], slots=2)
    6
    """
    free = [0] * min(slots, len(lengths))
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(1, *free)


# -- memory --------------------------------------------------------------------------------------------------------


def peak_memory(policy: Any, *, length: int, training: bool, rows: int = 0, **needs: bool) -> int:
    """Bytes that a process needs at most: an estimate from the shapes.

    length: tokens of the longest conversation, of which the decoder keeps keys and values. rows: tokens computed at
    once in training; needs: of the objective, see `training.memory.peak`, which is taken for all tokens trained.

    Loading takes the weights in float32 beside those of the policy's type.
    """
    from etude.apps import floors
    from etude.training.memory import peak

    parameters = list(policy.model.parameters())
    size = sum(p.numel() * p.element_size() for p in parameters)
    loading = size + sum(4 * p.numel() for p in parameters if p.element_size() < 4)
    cache = KEPT * min(policy.context, 2 * length) * floors.cache_bytes(policy.model)
    held = peak(policy.model, rows, **needs).total if training else size
    return PROCESS + max(loading, int(held + cache))
