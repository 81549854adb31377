"""The verbs of a recipe. A stage's keyword-only arguments are its options: what a recipe may set, with defaults."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from etude.apps.tasks import draw, pool_of, stream_seed
from etude.apps.work import Work, expert_of, model_of, script_of
from etude.core.errors import RecipeError
from etude.core.progress import progress
from etude.core.recipe import PartName
from etude.protocols import Sampling, Task
from etude.training import distributed
from etude.trajectory import StopReason, Trajectory

Part = str | dict
GENERAL = Path(__file__).parent.parent / "curation" / "data" / "general.jsonl"


async def collect(
    work: Work,
    *,
    by: str = "expert",
    agent: Annotated[Part | None, PartName("agents/loops")] = None,
    episodes: int = 200,
    group: int = 1,
    split: str = "train",
    where: dict[str, Any] | None = None,
    temperature: float = 1.0,
    max_tokens: int = 64,
    max_turns: int = 8,
    slips: float = 0.0,
    mend: bool = False,
    keep: bool = True,
) -> None:
    """Play episodes and add them to the data.

    by: `expert` (the environment's own solver) or `policy`.
    agent: the loop that plays; by default the recipe's.
    episodes: how many in all; `group` of them for each task.
    split: of the environment's tasks.
    where: field of a task (`domain`, `difficulty`, …) -> values, or difficulty -> {least, most}: only these tasks.
    temperature, max_tokens: of the policy's sampling, max_tokens per turn.
    max_turns: most answers in one episode.
    slips: share of the expert's calls that are misspelt. mend: whether it says the right call after such a one.
    keep: add them to the data; false only stores them.
    """
    from etude.policies.scripted import scripted
    from etude.synthesis.slips import slips as with_slips

    if by not in ("expert", "policy"):
        raise RecipeError(f"collect.by is {by!r}; it is 'expert' or 'policy'")
    tasks = draw(work, pool_of(work, split, where), -(-episodes // group), stream=work.phase)
    loop, expert = work.build("agents/loops", agent) if agent else None, None
    if by == "expert":
        solve, script = expert_of(work.environment), script_of(loop or work.agent)
        said = {
            task.id: script(with_slips(solve(task, work.seed), slips, mend=mend, seed=f"{work.seed} {task.id}"))
            for task in tasks
        }
        expert, max_turns = scripted(said), 99
    with progress(len(tasks) * group, f"collect by {by}", "episodes") as advance:
        made = await work.play(
            tasks,
            policy=expert,
            agent=loop,
            group=group,
            sampling=Sampling(max_tokens, temperature),
            seed=work.seed + work.phase,
            max_turns=max_turns,
            name=f"{work.name}/",
            on_episode=work.stoppable(advance),
        )
    work.count(step=1)
    key = work.put(fill(work, made))
    if keep:
        work.data.append(key)
    good = sum(e.reward == work.environment.reward_range[1] for t in made for e in t.episodes)
    work.log(f"collect: {len(tasks) * group} episodes by {by}, {good} solved")


async def branch(
    work: Work,
    *,
    by: Literal["policy", "expert"] = "policy",
    of: Literal["all", "failed", "solved"] = "all",
    every: int = 1,
    turns: int | None = None,
    group: int = 1,
    split: str = "train",
    temperature: float = 1.0,
    max_tokens: int = 64,
    max_turns: int = 8,
) -> None:
    """Go back to states of the data's episodes, play on from there, and add that to the data.

    by: `policy` goes on as it likes; `expert` goes on as it was, once for each answer, without that answer.
    of: which episodes; never those that an earlier `branch` made.
    every, turns, group: states that are that many answers apart, most answers of the policy, episodes from each state.
    split: that the data's tasks are of.
    temperature, max_tokens, max_turns: of the policy's play; max_tokens per turn.
    """
    from etude.curation.base import split_episodes
    from etude.rollout.branch import branch as play

    best = work.environment.reward_range[1]
    recorded = [t for t in work.read_data() if not {"start", "without"} & t.meta.keys()]
    alone = [one for t in recorded for one in split_episodes(t)]
    origins = [one for one in alone if of == "all" or (one.episodes[0].reward == best) == (of == "solved")]
    wanted = {one.task for one in origins}
    tasks = {task.id: task for task in work.environment.tasks(split) if task.id in wanted}
    if absent := sorted(wanted - tasks.keys()):
        raise RecipeError(f"branch: task {absent[0]!r} of the data is not in split {split!r}; set branch.split")
    with progress(None, f"branch by {by}", "episodes") as advance:
        made = await play(
            work.policy if by == "policy" else None,
            origins,
            tasks,
            agent=work.agent,
            every=every,
            turns=turns,
            group=group,
            sampling=Sampling(max_tokens, temperature),
            seed=stream_seed(work, 0),
            max_turns=max_turns,
            name=f"{work.name}/",
            on_episode=work.stoppable(advance),
        )
    work.count(step=1)
    work.data.append(work.put(fill(work, made)))
    good = sum(e.reward == best for t in made for e in t.episodes)
    work.log(f"branch: {sum(len(t.episodes) for t in made)} episodes from {len(origins)}, {good} solved")


async def import_(work: Work, *, files: list[str], format: str = "auto") -> None:
    """Read logs of other programs and add them to the data; rows that cannot be read go to quarantine.jsonl.

    files: paths. format: `auto`, or one of `etude import --help`.
    """
    from etude.trajectory.formats.base import import_files

    counts = distributed.first(
        lambda: import_files(files, work.store, work.directory.path / "quarantine.jsonl", format)
    )
    work.data += counts.shards
    work.log(f"import: {counts.good} rows read, {counts.quarantined} in quarantine")


async def score(work: Work, *, scoring: Annotated[list[Part], PartName("scoring")]) -> None:
    """Score the data, wherever it comes from: what each scorer says is kept, and the sum is the episode's score.

    scoring: scorers, such as a reward model's `verdict`. What came of an episode is in it, so a scorer may read that.
    """
    from etude.rollout.collect import make_ready
    from etude.rollout.collect import score as judge

    scorers, data = [work.build("scoring", part) for part in scoring], work.read_data()
    make_ready(work.policy, scorers)
    with progress(len(data), "score", "trajectories") as advance:
        for trajectory in data:
            await judge(trajectory, scorers)
            work.stoppable(advance)()
    work.count(step=1)
    work.data = [work.put(data)]
    scores = [e.score for t in data for e in t.episodes if e.score is not None]
    mean = f"{sum(scores) / len(scores):.3f}" if scores else "-"
    work.log(f"score: {len(scores)} of {sum(len(t.episodes) for t in data)} episodes scored, mean {mean}")


async def curate(work: Work, *, keep: Annotated[list[Part], PartName("curation")]) -> None:
    """Choose and edit the data, one curation part after the other.

    keep: curation parts in their order; `mix` gets general chat data that comes with etude.
    """
    data = fill(work, work.read_data())
    for part in keep:
        name = part if isinstance(part, str) else next(iter(part))
        curation = work.build("curation", part)
        before = sum(len(t.episodes) for t in data)
        data = fill(work, curation(data, general_chat()) if name == "mix" else curation(data))
        work.log(f"curate {name}: {before} -> {sum(len(t.episodes) for t in data)} episodes")
    work.data = [work.put(data)]


async def set_aside(work: Work, *, name: str) -> None:
    """Keep the model as it is, for parts that speak by it, and go on with the recipe's own and without data.

    name: later stages' parts find it where a model is written as `aside:NAME`, such as a reward model in `score`.
    """
    model, path = model_of(work.policy), work.aside(name)
    distributed.first(lambda: model.save(path))
    work.begin_again()
    work.log(f"set_aside: the model is kept as aside:{name}")


async def preflight(work: Work, *, allow: Sequence[str] = ()) -> None:
    """Check the data and refuse what would train something else than was asked for.

    allow: codes of findings that are meant to be so.
    """
    check(work, prepare(work, work.read_data()), mode="supervised", allow=allow)


async def train(
    work: Work,
    *,
    objective: Annotated[Part, PartName("objectives")] = "likelihood",
    credit: Annotated[Part | None, PartName("credit")] = None,
    epochs: int = 1,
    batch: int = 16,
    lr: float = 1e-4,
    schedule: str = "linear",
    warmup: int = 2,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    micro_tokens: int = 2048,
    allow: Sequence[str] = (),
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train on the data: every sampled token of the assistant, weight 1 unless it has another.

    objective: what is minimised.
    credit: scores of a group -> weights, for the data that has scores.
    epochs, batch: passes over the data, and episodes per step; groups, where the objective compares their episodes.
    lr, schedule, warmup, clip, weight_decay, micro_tokens: see `etude.training.Learner`.
    allow: preflight findings that are meant to be so.
    checkpoint_seconds: time between checkpoints.
    """
    from etude.training.offline import offline, samples_of, steps_of

    minimised, data = work.build("objectives", objective), work.read_data()
    if "groups" in minimised.needs and credit is None and all(n.weight_T is None for t in data for n in t.nodes):
        name = objective if isinstance(objective, str) else next(iter(objective))
        raise RecipeError(
            f"train.objective {name!r} compares episodes by their weights, and the data has none; "
            "set train.credit, such as credit: preference"
        )
    data = prepare(work, data, credit)
    if credit is None:
        check(work, data, mode="supervised", allow=allow)
    else:  # what a credit left unweighted is left out, and cut or failed episodes are there to be told from good ones
        check(work, data, mode="reinforcement", allow=allow, warn=["no_weight"])
    steps = steps_of(len(samples_of(data, minimised)), epochs=epochs, batch=batch)
    learner = take_learner(
        work,
        objective,
        lr=lr,
        schedule=schedule,
        warmup=warmup,
        steps=steps,
        clip=clip,
        weight_decay=weight_decay,
        micro_tokens=micro_tokens,
    )
    with progress(steps, "train", "steps") as advance:
        advance(work.step)

        def on_step(step: int, figures: dict[str, float]) -> None:
            work.record(step, figures)
            advance()
            work.save_if_due(step, checkpoint_seconds)

        offline(learner, data, epochs=epochs, batch=batch, seed=work.seed, start=work.step, on_step=on_step)
    work.save(steps)
    work.log(f"train: {steps} steps, {learner.tokens_trained} tokens trained")


class _Moved(Exception):
    """The guard of `practise` says that it is enough."""


async def practise(
    work: Work,
    *,
    steps: int = 10,
    tasks: int = 8,
    group: int = 4,
    split: str = "train",
    where: dict[str, Any] | None = None,
    from_data: bool = False,
    redraw: int = 0,
    scoring: Annotated[Sequence[Part], PartName("scoring")] = ("environment",),
    credit: Annotated[Part, PartName("credit")] = "group",
    objective: Annotated[Part, PartName("objectives")] = "clipped",
    updates: int = 1,
    correction: Literal["none", "truncate", "recompute"] = "none",
    truncation: float = 2.0,
    ahead: int = 0,
    guard: float = 0.0,
    lr: float = 1e-5,
    warmup: int = 0,
    clip: float = 1.0,
    temperature: float = 1.0,
    entropy: float = 0.0,
    max_tokens: int = 64,
    max_turns: int = 8,
    cut: Literal["scored", "unscored"] = "scored",
    micro_tokens: int = 2048,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Reinforcement: play groups of episodes, weigh them, take a step, again.

    steps: of practice; each plays `group` episodes of `tasks` tasks of the split.
    where: as in `collect`. from_data: only tasks that are in the data so far, which a curation such as `pass_rate` has
        chosen.
    redraw: how many times a step plays further tasks in the place of groups whose scores are all equal; such groups are
        then left out, as in DAPO's dynamic sampling. 0: they stay.
    scoring: their sum is an episode's score. credit: scores of a group -> weights. objective: weights -> loss.
    updates: optimiser steps per set of episodes.
    correction, truncation: of what sampler and learner differ by; see `etude.training.mismatch`.
    ahead: steps that play may be ahead of training; above 0, while a step is trained the next ones are played, which
        needs correction: truncate. Such a run is not the same twice, and one that is resumed plays anew what was in
        play.
    guard: end the stage when the policy is this far, in nats per token, from the one that played the first step; the
        distance is the forward KL on those episodes, which foretells forgetting (see `evaluation.razor`). 0: no guard.
    lr, warmup, clip, micro_tokens: see `etude.training.Learner`.
    temperature, max_tokens, max_turns: of the policy's play; max_tokens per turn.
    entropy: nats per token that the first play should have; a temperature is found for it (see
        `training.temperature`), from episodes played at `temperature`. 0: `temperature` as it is.
    cut: whether an episode that the token limit cut has its score, or none (overlong filtering).
    checkpoint_seconds: time between checkpoints.
    """
    from etude.evaluation.razor import forward_kl
    from etude.training.learner import rows
    from etude.training.online import has_signal, online

    if ahead < 0 or (ahead and correction != "truncate"):
        raise RecipeError(
            f"practise.ahead is {ahead} with correction: {correction}; to train on what older weights sampled, set "
            "ahead: 1 or more and correction: truncate, otherwise ahead: 0"
        )
    if ahead and distributed.ranks() > 1:
        raise RecipeError(f"practise.ahead is {ahead} and {distributed.ranks()} processes train; they play in step: 0")
    scorers = [work.build("scoring", part) for part in scoring]
    pool = pool_of(work, split, where, from_data)
    if entropy:
        temperature = await tempered(work, pool, tasks, entropy, Sampling(max_tokens, temperature), max_turns)
    sampling = Sampling(max_tokens, temperature)
    learner = take_learner(
        work,
        objective,
        lr=lr,
        warmup=warmup,
        clip=clip,
        micro_tokens=micro_tokens,
        max_length=max_tokens * max_turns,
        temperature=temperature,
        correction=correction,
        truncation=truncation,
    )
    moved: list[float] = []
    with progress(steps * tasks * group, "practise", "episodes") as advance:
        advance(work.step * tasks * group)

        async def on_begin(step: int) -> None:
            if guard and step:
                distance = await forward_kl(work.policy, list(work.store.read([f"{work.name}-000001"])))
                moved.append(distributed.first(lambda: distance))  # all ranks stop at the same step
                if moved[-1] > guard:
                    raise _Moved

        async def round_(step: int) -> list[Trajectory]:
            kept: list[Trajectory] = []
            played: list[Trajectory] = []
            for again in range(redraw + 1):
                stream = (work.phase, step, again) if again else (work.phase, step)
                played = await work.play(
                    draw(work, pool, tasks - len(kept), stream),
                    group=group,
                    sampling=sampling,
                    seed=stream_seed(work, step + again * steps),
                    max_turns=max_turns,
                    scorers=scorers,
                    name=f"{work.name}/{step + 1}/" + (f"{again}/" if again else ""),
                    on_episode=advance,
                )
                for trajectory in played if cut == "unscored" else ():
                    unscore_cut(trajectory)
                if not redraw:
                    return played
                kept += [t for t in played if has_signal(t)]
                if len(kept) == tasks:
                    break
            return kept or played

        def on_weighed(step: int, trajectories: list[Trajectory]) -> None:
            if step == 0:
                check(work, trajectories, mode="reinforcement", warn=["no_gradient", "no_weight"])
                if not rows(trajectories):
                    work.log("practise: no token of the first step has a weight, so nothing is trained in it")

        def on_step(step: int, figures: dict[str, float], trajectories: list[Trajectory]) -> None:
            work.put(trajectories, f"{step:06d}")
            work.record(step, figures | ({"kl": moved[-1]} if moved else {}))
            work.save_if_due(step, checkpoint_seconds)

        try:
            await online(
                learner,
                round_,
                work.build("credit", credit),
                steps=steps,
                start=work.step,
                updates=updates,
                ahead=ahead,
                on_begin=on_begin,
                on_weighed=on_weighed,
                on_step=on_step,
            )
        except _Moved:
            work.log(f"practise: stopped by its guard, {moved[-1]:.3f} nats per token from the policy it began with")
    work.save(steps)
    work.log(f"practise: {steps} steps, {learner.tokens_trained} tokens trained")


async def iterate(
    work: Work,
    *,
    rounds: int = 2,
    tasks: int = 32,
    group: int = 4,
    split: str = "train",
    keep: Annotated[Sequence[Part], PartName("curation")] = ("success",),
    objective: Annotated[Part, PartName("objectives")] = "likelihood",
    epochs: int = 1,
    batch: int = 16,
    lr: float = 1e-5,
    clip: float = 1.0,
    temperature: float = 1.0,
    max_tokens: int = 64,
    max_turns: int = 8,
    micro_tokens: int = 2048,
    allow: Sequence[str] = (),
) -> None:
    """Expert iteration: play a round, keep what is worth imitating, train on it, again.

    rounds: each plays `group` episodes of `tasks` tasks of the split.
    keep: curation parts that choose what to imitate.
    objective, epochs, batch, lr, clip, micro_tokens: of each round's training.
    temperature, max_tokens, max_turns: of the policy's play; max_tokens per turn.
    allow: preflight findings that are meant to be so, in what is kept of the first round that keeps anything.
    """
    from etude.training.iterated import iterated

    curation = [work.build("curation", part) for part in keep]
    learner = take_learner(work, objective, lr=lr, clip=clip, micro_tokens=micro_tokens, temperature=temperature)

    def choose(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        kept = list(trajectories)
        for part in curation:
            kept = part(kept)
        if kept and not learner.tokens_trained:
            check(work, kept, mode="supervised", allow=allow)
        return kept

    with progress(rounds * tasks * group, "iterate", "episodes") as advance:
        advance(work.step * tasks * group)

        async def round_(number: int) -> list[Trajectory]:
            return await work.play(
                draw(work, pool_of(work, split), tasks, stream=(work.phase, number)),
                group=group,
                sampling=Sampling(max_tokens, temperature),
                seed=stream_seed(work, number),
                max_turns=max_turns,
                name=f"{work.name}/{number + 1}/",
                on_episode=advance,
            )

        def on_round(number: int, figures: dict[str, float], trajectories: list[Trajectory]) -> None:
            work.put(trajectories, f"{number:06d}")
            work.record(number, figures)
            work.save(number)
            work.check_stop()

        await iterated(
            learner,
            round_,
            choose,
            rounds=rounds,
            start=work.step,
            epochs=epochs,
            batch=batch,
            seed=work.seed,
            on_round=on_round,
        )
    work.log(f"iterate: {rounds} rounds, {learner.tokens_trained} tokens trained")


async def evolve_weights(
    work: Work,
    *,
    steps: int = 10,
    population: int = 30,
    sigma: float = 1e-3,
    lr: float = 5e-4,
    tasks: int = 8,
    split: str = "train",
    scoring: Annotated[Sequence[Part], PartName("scoring")] = ("environment",),
    temperature: float = 0.0,
    max_tokens: int = 64,
    max_turns: int = 8,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Evolution strategies: play with weights that noise has moved, go towards those that scored better, again.

    steps: in each, `population` members play the same `tasks` tasks of the split, one episode each.
    sigma, lr: see `etude.training.evolution.Evolution`.
    scoring: their sum is an episode's score; a member's is the mean of its episodes that did not fail.
    temperature, max_tokens, max_turns: of the policy's play, greedy by default; max_tokens per turn.
    checkpoint_seconds: time between checkpoints.
    """
    import numpy as np

    from etude.training.evolution import Evolution
    from etude.training.online import summary

    scorers = [work.build("scoring", part) for part in scoring]
    weights = work.build("weights", work.recipe["weights"])
    evolution = work.take(Evolution(work.policy, weights=weights, sigma=sigma, lr=lr))
    with progress(steps * population * tasks, "evolve weights", "episodes") as advance:
        advance(work.step * population * tasks)
        for step in range(work.step, steps):
            random = np.random.default_rng(stream_seed(work, step))
            seeds = [int(seed) for seed in random.integers(2**63, size=population)]
            played: list[list[Trajectory]] = []
            for n, seed in enumerate(seeds):
                evolution.perturb(seed)
                members = await work.play(
                    draw(work, pool_of(work, split), tasks, stream=(work.phase, step)),
                    sampling=Sampling(max_tokens, temperature),
                    seed=stream_seed(work, step),
                    max_turns=max_turns,
                    scorers=scorers,
                    name=f"{work.name}/{step + 1}/{n}/",
                    on_episode=advance,
                )
                played.append(members)
            score_ME = [np.array([e.score for t in one for e in t.episodes if e.score is not None]) for one in played]
            scores = [float(score_E.mean()) if len(score_E) else np.nan for score_E in score_ME]
            evolution.update(seeds, scores)
            work.put([t for one in played for t in one], f"{step + 1:06d}")
            figures = summary([t for one in played for t in one])
            del figures["groups_with_gradient"]
            known = [score for score in scores if not np.isnan(score)]
            if known:
                figures |= {"best": max(known), "spread": float(np.std(known))}
            work.record(step + 1, figures)
            work.save_if_due(step + 1, checkpoint_seconds)
    work.save(steps)
    work.log(f"evolve_weights: {steps} steps of {population} members")


STAGES: dict[str, Callable[..., Any]] = {
    "collect": collect,
    "branch": branch,
    "import": import_,
    "score": score,
    "curate": curate,
    "set_aside": set_aside,
    "preflight": preflight,
    "train": train,
    "practise": practise,
    "iterate": iterate,
    "evolve_weights": evolve_weights,
}


# -- shared by stages ----------------------------------------------------------------------------------------------


async def tempered(
    work: Work, pool: Sequence[Task], tasks: int, target: float, sampling: Sampling, max_turns: int
) -> float:
    """The temperature that gives the policy this entropy; found once, before the first step, and kept in a file."""
    from etude.training.temperature import entropy_at, find_temperature

    file = work.directory.path / f"{work.name}-temperature.json"
    if not file.exists():
        drawn = draw(work, pool, tasks, stream=(work.phase, "temperature"))
        seed = stream_seed(work, 1_000_002)  # the last of the phase's, which no step has
        played = await work.play(drawn, sampling=sampling, seed=seed, max_turns=max_turns, name=f"{work.name}/0/")
        found = find_temperature(lambda T: entropy_at(work.policy, played, T), target)
        work.directory.write(file.name, json.dumps(found))
        work.log(f"practise: temperature {found:.3f} for an entropy of {target:g} nats per token")
    return json.loads(file.read_text())


def unscore_cut(trajectory: Trajectory) -> None:
    """Take the score from episodes that the token limit cut: what they would have earned is not known."""
    for episode in trajectory.episodes:
        if episode.stop is StopReason.TOKENS:
            episode.score = None


def take_learner(work: Work, objective: Part, **settings: Any) -> Any:
    """The phase's learner of the recipe's weights; settings: of `etude.training.Learner`."""
    from etude.training.learner import Learner

    weights = work.build("weights", work.recipe["weights"])
    scale = work.recipe["scale"]
    settings |= {"parallel": scale["learner"], "memory": scale["memory"]}
    return work.take(Learner(work.policy, work.build("objectives", objective), weights=weights, **settings))


def fill(work: Work, data: list[Trajectory]) -> list[Trajectory]:
    """Give ids to dialogues that have none, where the policy has a tokenizer here."""
    if hasattr(work.policy, "renderer"):
        for trajectory in data:
            for episode in trajectory.episodes:
                episode.rewritten = [work.policy.renderer.fill(trajectory, leaf) for leaf in episode.rewritten]
                episode.leaf = work.policy.renderer.fill(trajectory, episode.leaf, rewritten=episode.rewritten)
    return data


def prepare(work: Work, data: list[Trajectory], credit: Part | None = None) -> list[Trajectory]:
    """Give ids to dialogues that have none (imported ones), and weights to all.

    Groups that have scores are weighed by `credit`, if one is given; other paths without a weight get 1.
    """
    from etude.training.online import give

    model_of(work.policy)
    rest = fill(work, data)
    if credit is not None:
        give(work.build("credit", credit), [t for t in rest if _is_scored(t)])
        rest = [t for t in rest if not _is_scored(t)]
    for trajectory in rest:
        if all(node.weight_T is None for node in trajectory.nodes):
            trajectory.weigh([1.0] * len(trajectory.episodes))
    return data


def _is_scored(trajectory: Trajectory) -> bool:
    return any(episode.score is not None for episode in trajectory.episodes)


def check(
    work: Work,
    data: list[Trajectory],
    *,
    mode: Literal["supervised", "reinforcement"],
    allow: Sequence[str] = (),
    warn: Sequence[str] = (),
) -> None:
    """Preflight: print warnings, raise PreflightError for what must not be trained.

    allow: codes of findings that are passed over. warn: codes that are never more than a warning.
    """
    from etude.curation.preflight import Findings
    from etude.curation.preflight import preflight as inspect

    try:
        test = {task.id for task in work.environment.tasks("test")} if work.environment else set()
    except Exception:  # a world without a test split cannot leak it
        test = set()
    findings = inspect(
        data,
        work.policy.renderer,
        test_tasks=test,
        reward_range=work.environment.reward_range,
        max_tokens=work.policy.context,
        mode=mode,
        allow=allow,
    )
    told = tuple(replace(f, severity="warn") if f.code in warn else f for f in findings)
    for finding in told:
        if finding.severity == "warn":
            work.log(f"preflight: {finding}")
    Findings(told, findings.samples).raise_if_any()
    work.log(f"preflight: {findings.samples} samples pass")


def general_chat() -> list[Trajectory]:
    """General exchanges that come with etude, to mix with agent data; none of them is in the loss report."""
    from etude.trajectory.formats.base import import_file

    return [replace(t, environment="general", split="train") for t in import_file(GENERAL, "openai").trajectories]
