"""Mix agent episodes with general chat, so that practice does not cost general ability.

AgentTuning, Zeng et al. 2023, arXiv:2310.12823, eq. 1:
    J = eta E_{(x, y) ~ agent}[log pi(y | x)] + (1 - eta) E_{(x, y) ~ general}[log pi(y | x)]
done as the paper does it, by the ratio at which samples are drawn.
Departures: each set is drawn without replacement and begun again when used up, so that the realised share is eta to
within one sample and no sample is used twice before all are used once.
"""

import dataclasses

import numpy as np

from etude.core.errors import RecipeError
from etude.core.parts import part
from etude.curation.base import log, split_episodes
from etude.trajectory import Trajectory


@part
def mix(
    trajectories: list[Trajectory],
    general: list[Trajectory],
    *,
    eta: float = 0.2,
    size: int | None = None,
    seed: int = 0,
) -> list[Trajectory]:
    """One-episode trajectories, shuffled; a share eta of them from `trajectories`, the rest from `general`.

    eta: share of agent episodes, 0 to 1; 1 gives the agent's episodes alone, 0 the general ones alone.
    size: episodes to draw; by default every agent episode once (if eta is 0, every general one) and the rest to match.
    seed: of the order, and of which are chosen where not all fit.

    The n-th use of the same episode has `#n` at the end of its id. J is exact with normalise="sequence"; with "token",
    eta is a share of episodes, and longer ones count more.
    Raises RecipeError for an eta outside [0, 1] and for an empty set that eta asks for.
    """
    if not 0 <= eta <= 1:
        raise RecipeError(f"curation/mix: eta={eta} is not a share; give 0 (general chat only) to 1 (agent only)")
    agent = [one for t in trajectories for one in split_episodes(t)]
    chat = [one for t in general for one in split_episodes(t)]
    if size is None:
        size = round(len(agent) / eta) if eta > 0 else len(chat)
    agents = round(eta * size)
    for name, pool, count in (("trajectories", agent, agents), ("general", chat, size - agents)):
        if count and not pool:
            raise RecipeError(f"curation/mix: eta={eta} asks for {count} episodes of `{name}`, which has none")
    random = np.random.default_rng(seed)
    drawn = [*_draw(agent, agents, random), *_draw(chat, size - agents, random)]
    log.info("mix: %d agent and %d general episodes (eta %g)", agents, size - agents, eta)
    return [drawn[i] for i in random.permutation(size)]


def _draw(pool: list[Trajectory], count: int, random: np.random.Generator) -> list[Trajectory]:
    drawn: list[Trajectory] = []
    use = 1
    while len(drawn) < count:
        chosen = [pool[i] for i in random.permutation(len(pool))[: count - len(drawn)]]
        drawn += chosen if use == 1 else [dataclasses.replace(t, id=f"{t.id}#{use}") for t in chosen]
        use += 1
    return drawn
