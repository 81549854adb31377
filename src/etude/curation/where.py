"""Keep the trajectories that carry certain values: one domain, one data set, the easy tasks."""

from typing import Any

from etude.core.parts import part
from etude.curation.base import log, value_of
from etude.trajectory import Trajectory


@part
def where(trajectories: list[Trajectory], *, key: str, values: list[Any]) -> list[Trajectory]:
    """The same trajectories, in the same order, without those of another value.

    key: of meta, or `task`, `environment`, `split`; one that a trajectory lacks counts as None.
    values: what is kept.
    """
    kept = [t for t in trajectories if value_of(t, key) in values]
    log.info("where: kept %d of %d trajectories with %s in %s", len(kept), len(trajectories), key, values)
    return kept
