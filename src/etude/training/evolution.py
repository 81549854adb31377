"""Evolution strategies on the weights themselves: no gradient, no optimiser, the memory of inference.

Qiu et al. 2025, "Evolution Strategies at Scale: LLM Fine-Tuning Beyond Reinforcement Learning", arXiv:2509.24372:
    member n plays with  theta + sigma eps_n,  eps_n ~ N(0, I),  and gets the mean score R_n of its episodes
    theta <- theta + lr / N * sum_n Z_n eps_n,   Z_n = (R_n - mean(R)) / std(R)
eps_n is drawn from a seed, and drawn again for the update, so that it is never kept. Seeds and scores are all that a
worker needs to send, and the log of them rebuilds the weights of any step (`replay`).
Departures: theta is kept as a float32 copy, which costs one more set of weights. After a member they are copied back,
so that nothing drifts; the paper subtracts the noise again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core.errors import CheckpointError, PartError
from etude.protocols import Weights
from etude.training import distributed
from etude.training.learner import prepare

FILE = "learner.safetensors"  # as a learner's: later stages read the weights from it


class Evolution:
    """Owns what moves: float32 masters of the trainable parameters, and the log of seeds and scores."""

    tokens_trained = tokens_computed = 0
    seconds_computing = seconds_moving = 0.0

    def __init__(self, policy: Any, *, weights: Weights, sigma: float = 1e-3, lr: float = 5e-4):
        """policy: one with a `model`, such as `policies/local`. weights: which parameters move.

        sigma: standard deviation of the noise. lr: length of the step along the standardised noise; the paper's
            alpha, which has absorbed 1 / sigma.
        """
        if not hasattr(policy, "model"):
            raise PartError(f"policy {policy.name!r} has no weights to train; use policies/local")
        if sigma <= 0:
            raise PartError(f"evolution: sigma={sigma} must be above 0; 1e-3 is the paper's")
        prepare(policy, weights)
        self.policy, self.sigma, self.lr = policy, sigma, lr
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.log: list[tuple[list[int], list[float]]] = []
        """Of each step: the members' seeds, and their scores; NaN for one that could not be scored."""

    @property
    def done(self) -> int:
        """Updates so far."""
        return len(self.log)

    @torch.no_grad()
    def perturb(self, seed: int) -> None:
        """Make the policy the member of this seed."""
        for parameter, master, noise in zip(self.parameters, self.masters, self._noise(seed), strict=True):
            parameter.copy_(master + self.sigma * noise)
        self.policy.changed()

    @torch.no_grad()
    def restore(self) -> None:
        """Make the policy theta again, to the last bit."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
        self.policy.changed()

    @torch.no_grad()
    def update(self, seeds: Sequence[int], scores: Sequence[float]) -> None:
        """Move theta by the scores of its members, and the policy with it.

        Members scored NaN are left out. Equal scores move nothing.
        """
        self.log.append(([int(seed) for seed in seeds], [float(score) for score in scores]))
        score_N = np.asarray(scores, dtype=np.float64)
        known = score_N[~np.isnan(score_N)]
        if len(known) and np.ptp(known) > 0:
            step_N = self.lr / len(known) * (score_N - known.mean()) / known.std()
            for seed, step in zip(seeds, step_N, strict=True):
                if not np.isnan(step):
                    for master, noise in zip(self.masters, self._noise(seed), strict=True):
                        master.add_(noise, alpha=float(step))
        self.restore()

    def replay(self, log: Sequence[tuple[Sequence[int], Sequence[float]]]) -> None:
        """Make the updates of a log, from the weights as they are: on one machine, the same bits."""
        for seeds, scores in log:
            self.update(seeds, scores)

    def _noise(self, seed: int) -> Any:
        """Standard normal noise for each parameter in turn; drawn on the processor, so that a GPU gets the same."""
        random = torch.Generator().manual_seed(seed)
        return (torch.randn(m.shape, generator=random).to(m.device) for m in self.masters)

    # -- checkpoint -----------------------------------------------------------------------------------------------

    def save(self, directory: Path) -> None:
        """Write the weights as a learner does, and the log. Atomicity is the caller's (`training.checkpoint`)."""
        from safetensors.torch import save_file

        if distributed.rank():
            return
        state = {f"parameter.{i}": master.contiguous() for i, master in enumerate(self.masters)}
        state["counts"] = torch.tensor([len(self.log), 0, 0, self.policy.version])
        if self.log:
            state["seeds"] = torch.tensor([seeds for seeds, _ in self.log], dtype=torch.int64)
            state["scores"] = torch.tensor([scores for _, scores in self.log], dtype=torch.float64)
        save_file(state, directory / FILE)

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Raises CheckpointError when the file is absent or belongs to other weights."""
        from safetensors.torch import load_file

        if not (directory / FILE).exists():
            raise CheckpointError(f"no {directory / FILE}; the checkpoint is incomplete, delete {directory}")
        state = load_file(directory / FILE)
        if f"parameter.{len(self.masters) - 1}" not in state or f"parameter.{len(self.masters)}" in state:
            raise CheckpointError(f"{directory / FILE} holds other weights than the {len(self.masters)} here")
        for i, master in enumerate(self.masters):
            master.copy_(state[f"parameter.{i}"])
        seeds, scores = (state[name].tolist() if name in state else [] for name in ("seeds", "scores"))
        self.log = list(zip(seeds, scores, strict=True))
        self.restore()
        self.policy.version = int(state["counts"][3])
