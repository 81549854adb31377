"""Drop episodes that break the rules every tool dialogue obeys, and say which rule.

The rule checks of ActionStudio's critique-and-filter step, Zhang et al. 2025, arXiv:2503.22673, and the quality gates
of the Agent Data Protocol, Song et al. 2025, arXiv:2510.24702: each call is to an offered tool with arguments of its
types, each result answers a call, no call was malformed, roles take turns, and the assistant has the last
word, which no limit cut.
Departures: no model scores the rest; `curation/success` or a scorer does that.
"""

from collections import Counter

from etude.core.parts import part
from etude.curation.base import keep_episodes, log, problem
from etude.trajectory import Trajectory


@part
def wellformed(trajectories: list[Trajectory], *, thoughts: bool = False, errors: bool = False) -> list[Trajectory]:
    """The same trees with only the episodes that break no rule, in the same order.

    thoughts: whether each call must come with words: a thought, or content beside it.
    errors: whether a result that begins with `error:` counts as a broken rule.

    Each rejected episode is logged with its reason, and the counts by reason.
    """
    reasons: Counter[str] = Counter()
    kept = []
    for trajectory in trajectories:
        broken_G = [problem(trajectory, e, thoughts=thoughts, errors=errors) for e in trajectory.episodes]
        for g, broken in enumerate(broken_G):
            if broken:
                log.info("wellformed: rejected %s, episode %d: %s", trajectory.id, g, broken)
        reasons.update(broken.partition(":")[0] for broken in broken_G if broken)
        chosen = keep_episodes(trajectory, [not broken for broken in broken_G])
        if chosen is not None:
            kept.append(chosen)
    log.info(
        "wellformed: rejected %d episodes (%s)", reasons.total(), ", ".join(f"{n} {r}" for r, n in reasons.items())
    )
    return kept
