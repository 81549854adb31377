"""Ratings from pairwise battles: the maximum-likelihood fit of Bradley and Terry on Elo's scale.

Bradley & Terry 1952, "Rank Analysis of Incomplete Block Designs", doi.org/10.2307/2334029; Elo's scale as in the arenas
of language models (Chiang et al. 2024, "Chatbot Arena", arXiv:2403.04132):

    P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400)),   a draw is half a win for each

All battles are fitted at once by the minorise-maximise steps of Hunter 2004, "MM Algorithms for Generalized
Bradley-Terry Models", doi.org/10.1214/aos/1079120141:

    w_i <- W_i / sum_j n_ij / (w_i + w_j)

so their order cannot matter, and ratings are shifted so that their mean, and with it their sum, is always the same.
Departures: each two players get a small drawn battle on top (`prior`), because who won or lost all has no finite
rating; intervals come from drawing battles anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.core.errors import EtudeError
from etude.evaluation.statistics import Interval

SCALE, MEAN = 400.0, 1000.0
STEPS, EXACT = 10_000, 1e-12


@dataclass(frozen=True)
class Battle:
    """One game of two players."""

    one: str
    other: str
    score: float
    """Of `one`: 1 won, 1/2 drawn, 0 lost."""


def ratings(battles: Sequence[Battle], *, prior: float = 0.1, draws: int = 200, seed: int = 0) -> dict[str, Interval]:
    """Each player's rating with its 95% interval, the best first; their mean is 1000.

    prior: drawn battles that each two players get on top, may be a part of one.
    draws: battles drawn anew for the intervals; 0 leaves the bounds NaN. seed: of these draws.
    Raises EtudeError without battles, for one against oneself, and for a score that is not within 0 to 1.
    """
    if not battles:
        raise EtudeError("no battles to rate players by")
    for battle in battles:
        if battle.one == battle.other or not 0 <= battle.score <= 1:
            raise EtudeError(f"{battle}: two different players, and a score of 0 to 1")
    players = sorted({name for battle in battles for name in (battle.one, battle.other)})
    # in an order of their own, so that the intervals do not depend on the battles' order either
    ordered = sorted(battles, key=lambda battle: (battle.one, battle.other, battle.score))
    one_B, other_B = (np.array([players.index(getattr(b, side)) for b in ordered]) for side in ("one", "other"))
    score_B = np.array([battle.score for battle in ordered])

    def fitted(count_B: np.ndarray) -> np.ndarray:
        won_PP = np.zeros((len(players), len(players)))
        np.add.at(won_PP, (one_B, other_B), count_B * score_B)
        np.add.at(won_PP, (other_B, one_B), count_B * (1 - score_B))
        return fit(won_PP, prior)

    rating_P = fitted(np.ones(len(ordered)))
    low_P = high_P = np.full(len(players), np.nan)
    if draws:
        share, random = np.full(len(ordered), 1 / len(ordered)), np.random.default_rng(seed)
        drawn_DP = np.stack([fitted(random.multinomial(len(ordered), share)) for _ in range(draws)])
        low_P, high_P = np.quantile(drawn_DP, [0.025, 0.975], axis=0)
    order = sorted(range(len(players)), key=lambda p: (-rating_P[p], players[p]))
    return {players[p]: Interval(float(rating_P[p]), float(low_P[p]), float(high_P[p])) for p in order}


def fit(won_PP: np.ndarray, prior: float = 0.1) -> np.ndarray:
    """float64 [P]; ratings that make these results likeliest.

    won_PP: float64 [P, P]; how often the row's player beat the column's, a draw being half a win for each.

    >>> fit(np.array([[0.0, 3.0], [1.0, 0.0]]), prior=0.0).round(2).tolist()
    [1095.42, 904.58]
    """
    won_PP = won_PP + prior / 2 * (1 - np.eye(len(won_PP)))
    played_PP, won_P = won_PP + won_PP.T, won_PP.sum(1)
    weight_P = np.ones(len(won_PP))
    for _ in range(STEPS):
        new_P = won_P / (played_PP / (weight_P[:, None] + weight_P)).sum(1)
        new_P /= np.exp(np.log(new_P).mean())
        moved, weight_P = np.abs(np.log(new_P / weight_P)).max(), new_P
        if moved < EXACT:
            break
    rating_P = SCALE * np.log10(weight_P)
    return rating_P - rating_P.mean() + MEAN
