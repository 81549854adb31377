"""Train the critical steps alone; the others are what came before them.

ATLaS, Chen et al. 2025, "Agent Tuning via Learning Critical Steps", arXiv:2503.02197:
    L = -sum_{t in C} log pi(a_t | h_t) / (tokens of C),   |C| <= rho T,   rho = 0.3
C are the steps that make the plan, obtain key information, decide the outcome, or correct a mistake.
Departures: rules tell which these are (`rules`), or what becomes of the episode without the step (`counterfactual`),
instead of a language model.
"""

import itertools
import json
import math
from typing import Literal

import numpy as np

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import answers, log, split_episodes, train_only
from etude.trajectory import Message, Trajectory


@part
def critical(
    trajectories: list[Trajectory],
    *,
    by: Literal["rules", "counterfactual", "random", "first"] = "rules",
    rho: float = 0.3,
    seed: int = 0,
) -> list[Trajectory]:
    """One-episode trajectories in which at most ceil(rho T) of the T answers are trained.

    by: `rules` counts the criteria that a step meets; `counterfactual` takes what the reward loses without it, from the
        episodes that the stage `branch` made with `by: expert`, which it drops; `random` and `first` are baselines.
    rho: largest share of the answers, above 0 to 1; 1 trains all of them, whatever `by` says.
    seed: of `random`.

    Steps that meet no criterion, or without which nothing is lost, are not trained; an episode without any other is
    dropped. Raises RecipeError for a rho outside (0, 1] and for `counterfactual` where an episode has no branches.
    """
    if not 0 < rho <= 1:
        raise RecipeError(f"curation/critical: rho={rho} is no share of the steps; give more than 0, up to 1")
    random = np.random.default_rng(seed)
    without = {(t.meta["origin"], t.meta["without"]): t.episodes[0].reward for t in trajectories if "without" in t.meta}
    kept, steps, chosen = [], 0, 0
    originals = [one for t in trajectories if "without" not in t.meta for one in split_episodes(t)]
    for one in originals:
        found = answers(one)
        if by == "rules":
            worth = _criteria(one)
        elif by == "counterfactual":
            worth = [_loss(one, k, without) for k in range(len(found))]
        else:
            worth = list(random.permutation(len(found)) + 1.0 if by == "random" else np.arange(len(found), 0, -1.0))
        best = sorted(range(len(found)), key=lambda k: -worth[k])[: math.ceil(rho * len(found))]
        best = [k for k in best if worth[k] > 0 or rho == 1]
        steps, chosen = steps + len(found), chosen + len(best)
        kept.append(train_only(one, {found[k][0] for k in best}))
    log.info("critical: %d of %d steps are trained (%s)", chosen, steps, by)
    return [one for one in kept if one is not None]


def _loss(one: Trajectory, k: int, without: dict[tuple[str, int], float | None]) -> float:
    """What the reward loses without answer k."""
    if (one.id, k) not in without:
        raise RecipeError(
            f"curation/critical: nobody has played {one.id} without its answer {k + 1}; "
            "before this stage put  - branch: {by: expert}"
        )
    return (one.episodes[0].reward or 0.0) - (without[one.id, k] or 0.0)


def _criteria(one: Trajectory) -> list[float]:
    """How many of the criteria each answer meets."""
    found = answers(one)
    said = [one.messages[m] for m, _ in found]
    before = " ".join(m.content for m in itertools.takewhile(lambda m: m.role != "assistant", one.messages))
    last_call = max((k for k, message in enumerate(said) if message.tool_calls), default=len(said) - 1)
    worth = []
    for k, (_, results) in enumerate(found):
        told = " ".join(m.content for m in results)
        later = {value for message in said[k + 1 :] for value in _values(message)}
        plan = k == 0
        observation = any(value in told and value not in before for value in later)
        action = k == last_call
        correction = k > 0 and any(m.content.startswith("error:") for m in found[k - 1][1])
        worth.append(float(plan + observation + action + correction))
        before += " " + told
    return worth


def _values(message: Message) -> list[str]:
    """The arguments of a message's calls, as they would stand in a result."""
    arguments = (value for call in message.tool_calls for value in call.arguments.values())
    return [value if isinstance(value, str) else json.dumps(value) for value in arguments]
