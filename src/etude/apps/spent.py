"""Where the time of a run went: what share of the floor each phase reached, and what held it back.

A run counts tokens, steps and seconds as it goes (`Work.count`). The floor (`apps.floors`) is measured on this machine
now, so look at a run where it ran. The floor and what held a phase back add up to the time that it took.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.apps.plan import ACTIVE
from etude.core import recipe as recipes
from etude.core.errors import EtudeError
from etude.core.rundir import read_state


@dataclass(frozen=True)
class Spent:
    """One phase, in seconds."""

    phase: str
    seconds: float
    floor: float
    """For the same tokens, with all slots of the decoder filled."""
    slots: float
    """Conversations that a decoding step served, in the mean; 0 where nothing was decoded."""
    held: dict[str, float]
    """Cause -> seconds beyond the floor, largest first; below zero where the floor was measured too high."""

    @property
    def share(self) -> float:
        """Of the floor that was reached, 0 to 1."""
        return self.floor / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}


def spent(run: Path) -> list[Spent]:
    """Account for each phase of a run directory, in order. Raises EtudeError where the run counted nothing."""
    cost = read_state(run).get("cost", {})
    if not cost or any("seconds_decoding" not in amounts for amounts in cost.values()):
        raise EtudeError(f"{run} holds no account of its time; run its recipe again with this version of etude")
    speed = _floor(recipes.read(run / "run.yaml"))
    return [account(phase, amounts, speed) for phase, amounts in cost.items()]


def account(phase: str, amounts: Mapping[str, float], speed: Any) -> Spent:
    """Divide a phase's seconds by cause.

    amounts: what `Work.count` added up. speed: an `etude.apps.floors.Speed` at the floor.
    """
    sampled, steps = amounts["tokens_sampled"], amounts["decoding_steps"]
    full = sampled / ACTIVE * speed.decode_step(ACTIVE)
    as_filled = steps * speed.decode_step(sampled / steps) if steps else 0.0
    prefill = amounts["tokens_prefilled"] * speed.prefill
    train = amounts["tokens_computed"] * speed.train + amounts["tokens_trained"] * speed.head
    move = amounts["optimiser_steps"] * speed.step
    known = ("decoding", "waiting", "computing", "moving", "saving")
    held = {
        "decoding": amounts["seconds_decoding"] - as_filled - prefill,
        "few slots decoding": as_filled - full,
        "worlds, agents and rendering": amounts["seconds_waiting"],
        "training": amounts["seconds_computing"] - train,
        "optimiser": amounts["seconds_moving"] - move,
        "checkpoints": amounts["seconds_saving"],
        "experts, data and measuring": amounts["seconds"] - sum(amounts[f"seconds_{name}"] for name in known),
    }
    causes = dict(sorted(held.items(), key=lambda item: -item[1]))
    slots = sampled / steps if steps else 0.0
    return Spent(phase, amounts["seconds"], full + prefill + train + move, slots, causes)


def _floor(resolved: Mapping[str, Any]) -> Any:
    """The floor of the model that a run's recipe names."""
    from etude.apps import floors
    from etude.training.learner import prepare

    if resolved["policy"] is None:
        raise EtudeError("the run's policy was given as an object, which is not here: its floor cannot be measured")
    policy = recipes.build("policies", resolved["policy"])
    if not hasattr(policy, "model"):
        raise EtudeError(f"policy {policy.name!r} computes elsewhere: it has no floor here")
    prepare(policy, recipes.build("weights", resolved["weights"]))
    return floors.floor(policy.model, *floors.bandwidth(policy.device), slots=(1, 8, ACTIVE))
