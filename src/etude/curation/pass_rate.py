"""Keep the tasks that the policy solves sometimes: neither always nor never.

Yu et al. 2025, "Demystifying Reinforcement Learning in Agentic Reasoning", arXiv:2510.11701: practice on tasks chosen
by what the model can do. A group whose episodes all went equally well teaches nothing.
Departures: the bounds are settings.
"""

from etude.core.parts import part
from etude.curation.base import log
from etude.trajectory import Trajectory


@part
def pass_rate(
    trajectories: list[Trajectory], *, above: float = 0.0, below: float = 1.0, at_least: float = 1.0
) -> list[Trajectory]:
    """The same trajectories, in the same order, whose share of solved episodes is above one bound and below the other.

    above, below: shares, exclusive. at_least: smallest reward that counts as solved.
    Failed episodes and those without a reward do not count; a trajectory without any other is dropped.
    """
    kept = []
    for trajectory in trajectories:
        solved = [e.reward >= at_least for e in trajectory.episodes if e.failure is None and e.reward is not None]
        if solved and above < sum(solved) / len(solved) < below:
            kept.append(trajectory)
    log.info("pass_rate: kept %d of %d tasks (above %g, below %g)", len(kept), len(trajectories), above, below)
    return kept
