"""Keep the episodes that went well, by their reward or by what a scorer said of them.

Rejection sampling, as in AgentTuning, Zeng et al. 2023, arXiv:2310.12823, section 2.1.3: keep reward = 1, or a lower
threshold for tasks on which almost nothing earns it.
Departures: none.
"""

from collections import Counter

from etude.core.parts import part
from etude.curation.base import keep_episodes, log
from etude.trajectory import Episode, Trajectory


@part
def success(trajectories: list[Trajectory], *, at_least: float = 1.0, score: str = "") -> list[Trajectory]:
    """The same trees with only the episodes whose reward reaches the threshold, in the same order.

    at_least: smallest reward that is kept, in the environment's unit.
    score: name of one of the episode's scores, such as a scorer's, that is read in the place of the reward.

    Failed episodes and those without a reward, or without the score, are dropped, with the nodes that nothing else
    uses; a trajectory that keeps none is dropped. The counts are logged.
    """
    fates: Counter[str] = Counter()
    kept = []
    for trajectory in trajectories:
        fate_G = [_fate(e, at_least, score) for e in trajectory.episodes]
        fates.update(fate_G)
        chosen = keep_episodes(trajectory, [f == "kept" for f in fate_G])
        if chosen is not None:
            kept.append(chosen)
    log.info(
        "success: kept %d of %d episodes (%d below %g, %d failed, %d without a reward)",
        fates["kept"], fates.total(), fates["below"], at_least, fates["failed"], fates["unrewarded"],
    )  # fmt: skip
    return kept


def _fate(episode: Episode, at_least: float, score: str) -> str:
    if episode.failure is not None:
        return "failed"
    value = episode.scores.get(score) if score else episode.reward
    if value is None:
        return "unrewarded"
    return "kept" if value >= at_least else "below"
