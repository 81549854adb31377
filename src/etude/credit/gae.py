"""Generalised advantage estimation: each token is weighed by how much better it went than the critic expected.

Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv:1506.02438,
eq. 16:
    d_t = r_t + gamma V(s_t+1) - V(s_t),    A_t = d_t + gamma lam A_t+1,    the critic should expect A_t + V(s_t)
A step is one sampled token; what the world says between turns takes no time. A turn's reward comes with its last token,
what the episode's score holds beyond the turns' rewards with the last of all, and after that nothing is expected.
The weights of a step's tokens are then whitened, as is usual for PPO with language models (Ziegler et al. 2019,
arXiv:1909.08593).
Departures: an episode that a limit cut is taken as ended there. A token that several episodes share gets the sum of
their advantages and the mean of their returns.
"""

from collections.abc import Sequence

import numpy as np

from etude.core.errors import CreditError
from etude.core.parts import part
from etude.credit.base import finite
from etude.trajectory import Episode, Trajectory


@part
def gae(
    trajectories: Sequence[Trajectory], *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True, eps: float = 1e-8
) -> None:
    """Weigh each sampled token of scored episodes by its advantage, and say what the critic should have expected.

    gamma: discount per token. lam: 1 trusts what happened, 0 the critic's next guess.
    whiten: shift and scale all weights of the step to mean 0 and deviation 1. eps: added to the deviation.

    Raises CreditError where there is no critic, and for an infinite score.
    """
    found: list[tuple[Trajectory, int, np.ndarray]] = []
    for trajectory in trajectories:
        finite(trajectory.score_G, "gae")
        trajectory.weigh(np.full(len(trajectory.episodes), np.nan))  # clears what was there
        returns: dict[int, list[np.ndarray]] = {}
        for episode in trajectory.episodes:
            if episode.score is not None:
                for n, advantage_T, return_T in _advantages(trajectory, episode, gamma, lam):
                    found.append((trajectory, n, advantage_T))
                    returns.setdefault(n, []).append(return_T)
        for n, own in returns.items():
            trajectory.nodes[n].return_T = np.mean(own, axis=0).astype(np.float32)
    if not found:
        return
    every = np.concatenate([advantage_T for _, _, advantage_T in found])
    shift, scale = (np.nanmean(every), np.nanstd(every) + eps) if whiten else (0.0, 1.0)
    for trajectory, n, advantage_T in found:
        trajectory.weigh_node(n, (advantage_T - shift) / scale)


def _advantages(
    trajectory: Trajectory, episode: Episode, gamma: float, lam: float
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Of each sampled node of an episode, its number, and float64 [T] advantages and returns, NaN where not sampled."""
    own = [n for n in trajectory.nodes_of(episode) if trajectory.nodes[n].sampled]
    left = episode.score or 0.0
    made: list[tuple[int, np.ndarray, np.ndarray]] = []
    for n in own[:-1]:
        left -= trajectory.nodes[n].reward or 0.0
    ahead = value = 0.0  # the advantage and the value of the token after
    for n in reversed(own):
        node = trajectory.nodes[n]
        if node.value_T is None or node.sampled_T is None:
            raise CreditError(
                "credit/gae measures against what a critic expects, and there is none; give the objective one, such "
                "as objective: {clipped: {value: 0.5}}, or use credit: turns"
            )
        reward = left if n == own[-1] else node.reward or 0.0
        advantage_T = np.full(len(node.sampled_T), np.nan)
        for t in np.flatnonzero(node.sampled_T)[::-1]:
            expected = float(node.value_T[t])
            ahead = reward + gamma * value - expected + gamma * lam * ahead
            advantage_T[t], value, reward = ahead, expected, 0.0
        made.append((n, advantage_T, advantage_T + node.value_T))
    return made[::-1]
