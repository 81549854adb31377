"""What is good in an expert's failures: the steps from which the policy succeeds, and how it went on from there.

EEF, Lan et al. 2025, "Exploring Expert Failures Improves LLM Agent Tuning", arXiv:2504.13145. The policy plays from the
states s_0, s_l, s_2l, ... of every failed episode (stage `branch`). Where it fails from s_kl and succeeds from
s_(k+1)l, the expert's answers between them are beneficial:
    sample = expert's answers up to s_(k+1)l, then the policy's;   loss on the beneficial ones and on the policy's alone
Departures: of several successes from one state the first is taken, and a success counts where the state before it led
to none, so that a recovery after a mistake is kept like the first success is.
"""

from collections import defaultdict

from etude.core.parts import part
from etude.curation.base import answers, keep_episodes, log, split_episodes, train_only
from etude.trajectory import Trajectory


@part
def salvage(trajectories: list[Trajectory], *, at_least: float = 1.0) -> list[Trajectory]:
    """The successes of the data, then one sample for every state of a failure from which success begins.

    at_least: smallest reward that counts as success.

    The samples are the episodes that the stage `branch` made; without any, this is `curation/success`.
    """
    played: defaultdict[str, dict[int, list[Trajectory]]] = defaultdict(dict)
    originals = []
    for trajectory in trajectories:
        if "start" in trajectory.meta:
            played[trajectory.meta["origin"]].setdefault(trajectory.meta["start"], []).append(trajectory)
        else:
            originals.append(trajectory)
    kept = [t for t in (_good(t, at_least) for t in originals) if t is not None]
    found: list[Trajectory] = []
    for starts in played.values():
        before = None
        for start in sorted(starts):
            good = next((one for t in starts[start] if (one := _good(t, at_least)) is not None), None)
            if good is not None and (before is None or not before[1]):
                found += _sample(good, range(before[0] if before else start, start))
            before = (start, good is not None)
    log.info("salvage: %d successes, and %d samples from %d failures", len(kept), len(found), len(played))
    return [*kept, *found]


def _good(trajectory: Trajectory, at_least: float) -> Trajectory | None:
    """The successful episodes alone."""
    good_G = [e.failure is None and e.reward is not None and e.reward >= at_least for e in trajectory.episodes]
    return keep_episodes(trajectory, good_G)


def _sample(good: Trajectory, beneficial: range) -> list[Trajectory]:
    """The first success, in which the beneficial answers of the expert and all of the policy are trained."""
    one = split_episodes(good)[0]
    trained = {m for k, (m, _) in enumerate(answers(one)) if k in beneficial or k >= one.meta["start"]}
    sample = train_only(one, trained)
    if sample is None:
        return []
    sample.meta = {key: value for key, value in one.meta.items() if key != "start"}  # from now on, data like any other
    return [sample]
