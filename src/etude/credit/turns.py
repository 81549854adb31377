"""Turn credit: each turn is weighed by what came after it.

Reward to go: Sutton & Barto 2018, "Reinforcement Learning", eq. 3.8:  R_t = sum_{s >= t} gamma^(s - t) r_s
Group-relative, after the process supervision of Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.3:
    w_t = (R_t - mean(R)) / (std(R) + eps)
Departures: the paper normalises the rewards and then adds what follows; here the return is normalised, so that a turn's
weight does not grow with the number of turns after it.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from etude.core.parts import part
from etude.credit.base import centred, finite, scaled
from etude.trajectory import Episode, Trajectory


@part
def turns(
    trajectory: Trajectory,
    *,
    gamma: float = 1.0,
    scores: Sequence[str] = (),
    over: Literal["turn", "group"] = "turn",
    std: bool = True,
    eps: float = 1e-4,
) -> None:
    """Weigh the turns of one group; each turn's weight goes to its sampled tokens.

    A turn earns its reward from the environment and its node's scores of these names. What the episode's score holds
    beyond them is earned by the last turn: with gamma 1 the first turn's return is the score.

    gamma: discount per turn.
    scores: of the nodes, such as `shaping`; scorers that put them there count in the episode's score as well.
    over: a turn is compared with the turns of the same place in their episodes, or with all of the `group`.
    std: divide by the standard deviation. eps: added to it, in the score's unit.

    Where fewer than two turns can be compared they get no weight. An unscored episode is not weighed.
    Raises CreditError for an infinite score.
    """
    finite(trajectory.score_G, "turns")
    trajectory.weigh(np.full(len(trajectory.episodes), np.nan))  # clears what was there
    nodes: list[int] = []
    places: list[int] = []
    returns: list[float] = []
    for episode in trajectory.episodes:
        if episode.score is not None:
            own = [n for n in trajectory.nodes_of(episode) if trajectory.nodes[n].sampled]
            nodes += own
            places += range(len(own))
            returns += _returns(trajectory, episode, own, gamma, scores)
    place_N, return_N = np.array(places), np.array(returns, dtype=np.float64)
    weight_N = np.full(len(nodes), np.nan)
    groups = [np.ones(len(nodes), bool)] if over == "group" else [place_N == p for p in sorted(set(places))]
    for group_N in groups:
        deviation_N = centred(return_N[group_N])
        weight_N[group_N] = scaled(deviation_N, eps) if std else deviation_N
    for n, weight in zip(nodes, weight_N, strict=True):
        if not np.isnan(weight):
            trajectory.weigh_node(n, float(weight))


def _returns(
    trajectory: Trajectory, episode: Episode, nodes: list[int], gamma: float, scores: Sequence[str]
) -> list[float]:
    """The return of each turn of an episode that has a score."""
    earned = [trajectory.nodes[n] for n in nodes]
    rewards = [(node.reward or 0.0) + sum(node.scores.get(name, 0.0) for name in scores) for node in earned]
    if not rewards:
        return []
    rewards[-1] += (episode.score or 0.0) - sum(rewards)
    returns = [rewards[-1]]
    for reward in rewards[-2::-1]:
        returns.append(reward + gamma * returns[-1])
    return returns[::-1]
