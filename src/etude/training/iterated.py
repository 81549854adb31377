"""The iterated loop: play a round, keep what is worth imitating, train on it, again.

With the success filter and likelihood this is expert iteration (rejection-sampling fine-tuning, RFT, STaR).
"""

from collections.abc import Awaitable, Callable, Sequence

from etude.training.learner import Learner
from etude.training.offline import Report, offline
from etude.training.online import summary
from etude.trajectory import Trajectory


async def iterated(
    learner: Learner,
    play: Callable[[int], Awaitable[list[Trajectory]]],
    curate: Callable[[Sequence[Trajectory]], Sequence[Trajectory]],
    *,
    rounds: int,
    start: int = 0,
    epochs: int = 1,
    batch: int = 16,
    seed: int = 0,
    on_step: Report = lambda step, figures: None,
    on_round: Callable[[int, dict[str, float], list[Trajectory]], None] = lambda number, figures, trajectories: None,
) -> None:
    """Practise for `rounds` rounds.

    play: round number, from 0 -> its trajectories. curate: which of them to imitate; each gets weight 1.
    start: rounds already finished. on_step, on_round: called after each optimiser step and each round, numbered from 1.
    """
    for number in range(start, rounds):
        trajectories = await play(number)
        kept = list(curate(trajectories))
        for trajectory in kept:
            trajectory.weigh([1.0] * len(trajectory.episodes))
        offline(learner, kept, epochs=epochs, batch=batch, seed=seed + number, on_step=on_step)
        on_round(number + 1, summary(trajectories) | {"kept": len(kept)}, trajectories)
