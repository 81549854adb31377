"""Train answers alone, and not the first of them: those that were there before what is to be learnt."""

from etude.core.parts import part
from etude.curation.base import answers, split_episodes, train_only
from etude.trajectory import Trajectory


@part
def given(trajectories: list[Trajectory], *, key: str = "given") -> list[Trajectory]:
    """One-episode trajectories, of which the first `meta[key]` answers are context; without the key, none are.

    Nothing but answers is trained, whatever was before.

    An episode of which nothing is left is dropped.
    """
    kept = []
    for one in (one for t in trajectories for one in split_episodes(t)):
        kept.append(train_only(one, {m for m, _ in answers(one)[one.meta.get(key, 0) :]}))
    return [one for one in kept if one is not None]
