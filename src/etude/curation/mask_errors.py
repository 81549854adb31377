"""Calls that went wrong stay in the context and are not trained: recovery is learnt, the mistake is not.

Error-masked SFT, KAT-Coder, Zhan et al. 2025, arXiv:2510.18779: in traces of deployment, calls whose result is an error
keep their place and lose their loss.
Departures: none.
"""

import re

from etude.core.parts import part
from etude.curation.base import answers, log, split_episodes, train_only
from etude.trajectory import Trajectory


@part
def mask_errors(trajectories: list[Trajectory], *, errors: str = r"(?i)\W*error\b") -> list[Trajectory]:
    """One-episode trajectories; an answer that could not be read, or of which a result is an error, is not trained.

    errors: regular expression that the beginning of a result matches if it reports an error.

    An episode of nothing but errors is dropped.
    """
    kept, masked = [], 0
    for one in (one for t in trajectories for one in split_episodes(t)):
        malformed = {node.message for node in one.nodes if "malformed" in node.scores}
        found = answers(one)
        right = {
            m
            for m, results in found
            if m not in malformed and not any(re.match(errors, result.content) for result in results)
        }
        masked += len(found) - len(right)
        kept.append(train_only(one, right))
    log.info("mask_errors: %d answers are not trained", masked)
    return [one for one in kept if one is not None]
