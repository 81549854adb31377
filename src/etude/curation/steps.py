"""One sample per step: each assistant message becomes a target of its own, behind everything that came before it.

ActionStudio, Zhang et al. 2025, arXiv:2503.22673 (per-step expansion of an action trajectory). The tokens that are
trained, and what each of them sees, stay the same, so with normalise="token" the gradient over all steps is that of the
whole trajectories; with "sequence" every step counts the same instead of every trajectory.
Departures: none.
"""

import dataclasses

from etude.core.errors import TrajectoryError
from etude.core.parts import part
from etude.curation.base import as_context, log, split_episodes
from etude.trajectory import Trajectory


@part
def steps(trajectories: list[Trajectory]) -> list[Trajectory]:
    """One-episode trajectories that end with the one message to train, in the order of the steps.

    Their ids end in `:1`, `:2`, …; each keeps its episode's reward and scores. Earlier answers become context: nothing
    of them is marked as sampled or weighted.
    Raises TrajectoryError for an answer without tokens: what is to be trained of it could not be recorded.
    """
    found = [one for t in trajectories for episode in split_episodes(t) for one in _expand(episode)]
    log.info("steps: %d trajectories became %d samples", len(trajectories), len(found))
    return found


def _expand(trajectory: Trajectory) -> list[Trajectory]:
    episode = trajectory.episodes[0]
    path = trajectory.path(episode.leaf)
    samples = []
    for end, n in enumerate(path):
        message, node = trajectory.messages[trajectory.nodes[n].message], trajectory.nodes[n]
        if message.role != "assistant":
            continue
        if node.ids_T is None or node.sampled_T is None:
            raise TrajectoryError(f"trajectory {trajectory.id} node {n} has no tokens; Renderer.fill gives them")
        if not node.sampled_T.any():
            continue
        chain = [
            dataclasses.replace(as_context(trajectory.nodes[m]), parent=i - 1 if i else None, message=i)
            for i, m in enumerate(path[:end])
        ]
        chain.append(dataclasses.replace(node, parent=end - 1 if end else None, message=end))
        samples.append(
            dataclasses.replace(
                trajectory,
                id=f"{trajectory.id}:{len(samples) + 1}",
                messages=[trajectory.messages[trajectory.nodes[m].message] for m in path[: end + 1]],
                nodes=chain,
                episodes=[dataclasses.replace(episode, leaf=end, rewritten=[], turns=1)],
            )
        )
    return samples
