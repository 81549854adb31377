"""Weighted trajectories -> changed weights. The learner knows no method: it reads one weight per sampled token.

A step turns trajectories into rows (one per path, each sampled node in exactly one of them), lays rows that begin alike
out as trees, so that what they share is computed once, cuts these into micro-batches of like size, adds up the
objective's gradients in float32 and moves the parameters once. Where the model computes in bfloat16, float32 master
weights are kept, because updates below bfloat16's resolution would vanish.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core import parts
from etude.core.errors import CheckpointError, PartError
from etude.protocols import Batch, Objective, Weights
from etude.trajectory import Episode, Trajectory
from etude.trajectory.forest import Tree, batches, forest

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Row:
    """One path to train on."""

    ids_P: np.ndarray
    """int32 [P]"""
    mask_P: np.ndarray
    """bool [P]; tokens that carry a weight."""
    weight_N: np.ndarray
    """float32 [N]; the weights of the masked tokens."""
    old_logprob_N: np.ndarray
    """float32 [N]; as recorded at sampling, NaN where it was not."""
    episode: int
    """Which episode it is of; several rows are of one where a template rewrote history."""
    length: int
    """Weighted tokens of that whole episode."""
    group: int
    """Which trajectory it is of."""
    score: float = math.nan
    """Of the episode; NaN where it has none."""


def rows(trajectories: Sequence[Trajectory]) -> list[Row]:
    """The paths that carry weight, numbered by episode and trajectory; a node on several is trained in the first alone.

    Its weight is already the sum over its episodes (`Trajectory.weigh`), so this equals training every episode apart.
    Where an objective divides by an episode's length, a shared node counts in the length of each of its episodes, and
    is divided by that of the first: the same as apart where they are equally long. An episode that shares all of its
    weighted nodes with earlier ones has no row.
    """
    found: list[Row] = []
    episodes = 0
    for group, trajectory in enumerate(trajectories):
        seen: set[int] = set()
        for episode in trajectory.episodes:
            length = sum(len(weight_N) for _, _, weight_N, _ in _paths(trajectory, episode, set()))
            paths = _paths(trajectory, episode, seen)
            score = math.nan if episode.score is None else episode.score
            found += [Row(*path, episode=episodes, length=length, group=group, score=score) for path in paths]
            episodes += 1
    return found


def _paths(trajectory: Trajectory, episode: Episode, seen: set[int]) -> list[tuple[np.ndarray, ...]]:
    paths = [_path(trajectory, leaf, seen) for leaf in (*episode.rewritten, episode.leaf)]
    return [path for path in paths if path is not None]


def _path(trajectory: Trajectory, leaf: int, seen: set[int]) -> tuple[np.ndarray, ...] | None:
    """A row's ids, mask, weights and recorded log-probabilities; None where only nodes in `seen` carry a weight."""
    ids, weights, logprobs = [], [], []
    for n in trajectory.path(leaf):
        node = trajectory.nodes[n]
        if node.ids_T is None:
            continue
        absent_T = np.full(len(node.ids_T), np.nan, np.float32)
        ids.append(node.ids_T)
        weights.append(absent_T if node.weight_T is None or n in seen else node.weight_T)
        logprobs.append(absent_T if node.logprob_T is None else node.logprob_T)
        seen.add(n)
    if not ids:
        return None
    weight_P = np.concatenate(weights)
    mask_P = ~np.isnan(weight_P)
    mask_P[0] = False  # the first token of a context has no probability
    if not mask_P.any():
        return None
    last = int(np.flatnonzero(mask_P)[-1]) + 1  # what follows the last weighted token is never computed
    ids_P, mask_P, weight_P = np.concatenate(ids)[:last], mask_P[:last], weight_P[:last]
    return ids_P, mask_P, weight_P[mask_P].astype(np.float32), np.concatenate(logprobs)[:last][mask_P]


class Learner:
    """Owns what moves: the trainable parameters, their float32 masters and the optimiser."""

    def __init__(
        self,
        policy: Any,
        objective: Objective,
        *,
        weights: Weights | str = "full",
        lr: float = 1e-4,
        schedule: str = "constant",
        warmup: int = 0,
        steps: int = 0,
        clip: float = 1.0,
        weight_decay: float = 0.0,
        micro_tokens: int = 2048,
        max_length: int = 256,
        temperature: float = 1.0,
    ):
        """policy: one with a `model` and `logprob`, such as `policies/local`.

        weights: a weights part or its name; applied once per policy.
        lr: AdamW's step size after `warmup` steps; `schedule` (constant, linear, cosine) takes it to zero at `steps`.
        clip: largest gradient norm; 0 turns clipping off.
        micro_tokens: tokens computed at once.
        max_length: the constant of Dr. GRPO's normalisation, in tokens.
        temperature: at which the episodes were sampled.
        """
        if schedule not in SCHEDULES:
            raise PartError(f"learner: schedule={schedule!r} is not one of {', '.join(SCHEDULES)}")
        if not hasattr(policy, "logprob"):
            raise PartError(f"policy {policy.name!r} has no weights to train; use policies/local")
        self.policy, self.objective = policy, objective
        self.lr, self.schedule, self.warmup, self.steps = lr, schedule, warmup, steps
        self.clip, self.micro_tokens, self.max_length, self.temperature = clip, micro_tokens, max_length, temperature
        part: Weights = parts.build(f"weights/{weights}") if isinstance(weights, str) else weights
        prepare(policy, part)
        # dropout is off (eval mode): the probabilities trained are those that were sampled
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        exact = all(p.dtype == torch.float32 for p in self.parameters)
        self.masters = self.parameters if exact else [p.detach().float().clone() for p in self.parameters]
        # what the objective itself learns
        self.own: list[torch.Tensor] = list(getattr(objective, "parameters", list)())
        self.optimiser = torch.optim.AdamW(
            [*self.masters, *self.own], lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
        )
        self.done = 0
        self.tokens_trained = 0
        self.tokens_computed = 0
        self.seconds_computing = self.seconds_moving = 0.0  # of this process
        # the reference is the policy as it is now; of adapters that is a small copy, and fresh ones change nothing
        needs_reference = "reference" in objective.needs
        self.reference = [p.detach().clone() for p in self.parameters] if needs_reference else []

    def step(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """One optimiser step on all that carries weight; figures to log. Without any weight, nothing moves."""
        return self.step_rows(rows(trajectories))

    def step_rows(self, batch: Sequence[Row]) -> dict[str, float]:
        """See `step`."""
        tokens = sum(int(r.mask_P.sum()) for r in batch)
        figures: dict[str, float] = {"rows": len(batch), "tokens": tokens}
        if not tokens:
            return figures | {"loss": 0.0, "gradient_norm": 0.0, "lr": 0.0}
        start, total = time.perf_counter(), 0.0
        gradients = [torch.zeros_like(m) for m in self.masters]
        units = self._units(batch)
        for micro in batches(units, self.micro_tokens):
            own = [batch[r] for tree in micro for r in tree.rows]
            loss, metrics = self.objective(self._batch(micro, batch, own, tokens))
            loss.backward()
            with torch.no_grad():
                for gradient, parameter in zip(gradients, self.parameters, strict=True):
                    if parameter.grad is not None:
                        gradient += parameter.grad.float()
                        parameter.grad = None
            total += loss.item()
            share = sum(int(r.mask_P.sum()) for r in own) / tokens
            for name, value in metrics.items():
                figures[name] = figures.get(name, 0.0) + share * value
        computed = time.perf_counter()
        norm = self._move(gradients)
        self.seconds_computing += computed - start
        self.seconds_moving += time.perf_counter() - computed
        self.tokens_trained += tokens
        self.tokens_computed += sum(len(tree.ids_L) for unit in units for tree in unit)
        self.policy.changed()
        return figures | {"loss": total, "gradient_norm": norm, "lr": self.optimiser.param_groups[0]["lr"]}

    def _units(self, batch: Sequence[Row]) -> list[list[Tree]]:
        """Trees that stay in one micro-batch: those of one trajectory, where the objective compares its episodes."""
        whole = "groups" in self.objective.needs
        together: dict[int, list[int]] = {}
        for r, row in enumerate(batch):
            together.setdefault(row.group if whole else 0, []).append(r)
        units = []
        for own in together.values():
            laid = forest([batch[r].ids_P for r in own], self.micro_tokens, self.policy.reach)
            trees = [replace(tree, rows=[own[r] for r in tree.rows]) for tree in laid]
            units += [trees] if whole else [[tree] for tree in trees]
        return units

    def _batch(self, trees: Sequence[Tree], batch: Sequence[Row], own: Sequence[Row], tokens: int) -> Batch:
        masks, needs = [r.mask_P for r in batch], self.objective.needs
        logprob_N, entropy_N = self.policy.logprob(
            trees, masks, temperature=self.temperature, entropy="entropy" in needs
        )
        device = logprob_N.device
        old_N = torch.from_numpy(np.concatenate([r.old_logprob_N for r in own])).to(device)
        count_S = torch.tensor([int(r.mask_P.sum()) for r in own], device=device)
        return Batch(
            logprob_N=logprob_N,
            weight_N=torch.from_numpy(np.concatenate([r.weight_N for r in own])).to(device),
            old_logprob_N=torch.where(old_N.isnan(), logprob_N.detach(), old_N),
            sequence_N=torch.repeat_interleave(torch.arange(len(own), device=device), count_S),
            length_S=torch.tensor([r.length for r in own], device=device),
            tokens=tokens,
            sequences=len({r.episode for r in batch}),
            max_length=self.max_length,
            episode_S=_numbered([r.episode for r in own]).to(device),
            group_S=_numbered([r.group for r in own]).to(device),
            groups=len({r.group for r in batch}),
            reference_logprob_N=self._reference_logprob(trees, masks) if "reference" in needs else None,
            entropy_N=entropy_N,
            score_S=torch.tensor([r.score for r in own], dtype=torch.float64, device=device),
        )

    @torch.no_grad()
    def _reference_logprob(self, trees: Sequence[Tree], masks: Sequence[np.ndarray]) -> torch.Tensor:
        tuned = [p.data for p in self.parameters]
        try:
            for parameter, value in zip(self.parameters, self.reference, strict=True):
                parameter.data = value
            return self.policy.logprob(trees, masks, temperature=self.temperature)[0]
        finally:
            for parameter, value in zip(self.parameters, tuned, strict=True):
                parameter.data = value

    @torch.no_grad()
    def _move(self, gradients: list[torch.Tensor]) -> float:
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            advice = f"lower lr (now {self.lr:g}) or the weights"
            raise PartError(f"the gradient at step {self.done + 1} is {norm.item()}; {advice}")
        if self.clip and norm > self.clip:
            torch._foreach_mul_(gradients, self.clip / (norm.item() + 1e-6))
        for master, gradient in zip(self.masters, gradients, strict=True):
            master.grad = gradient
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * self._share()
        self.optimiser.step()
        for own in self.own:
            own.grad = None
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = None
            if master is not parameter:
                parameter.copy_(master)
        self.done += 1
        return norm.item()

    def _share(self) -> float:
        """Share of `lr` for the step about to be made."""
        if self.done < self.warmup:
            return (self.done + 1) / self.warmup
        if self.schedule == "constant" or not self.steps:
            return 1.0
        left = max(0.0, 1 - (self.done - self.warmup) / max(1, self.steps - self.warmup))
        return left if self.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    # -- checkpoint: safetensors and a small JSON state ---------------------------------------------------------------

    def save(self, directory: Path) -> None:
        """Write all that the next step depends on. Atomicity is the caller's (`training.checkpoint`)."""
        from safetensors.torch import save_file

        counts = [self.done, self.tokens_trained, self.tokens_computed, self.policy.version]
        state: dict[str, torch.Tensor] = {"counts": torch.tensor(counts)}
        for i, master in enumerate(self.masters):
            state[f"parameter.{i}"] = master.detach()
            for name, value in self.optimiser.state.get(master, {}).items():
                state[f"{name}.{i}"] = value
        for i, own in enumerate(self.own):
            state[f"objective.{i}"] = own.detach()
            for name, value in self.optimiser.state.get(own, {}).items():
                state[f"objective.{name}.{i}"] = value
        state |= {f"reference.{i}": value for i, value in enumerate(self.reference)}
        save_file({k: v.contiguous() for k, v in state.items()}, directory / "learner.safetensors")

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Raises CheckpointError when the file is absent or belongs to other weights."""
        state = _read(directory, len(self.masters))
        self.done, self.tokens_trained, self.tokens_computed = (int(v) for v in state["counts"][:3])
        for i, (master, parameter) in enumerate(zip(self.masters, self.parameters, strict=True)):
            master.copy_(state[f"parameter.{i}"])
            parameter.copy_(master)
            self.optimiser.state.pop(master, None)
            if f"step.{i}" in state:
                # the fused step reads memory in its order, so the moments must lie as their parameter does
                moments = {n: torch.empty_like(master).copy_(state[f"{n}.{i}"]) for n in ("exp_avg", "exp_avg_sq")}
                self.optimiser.state[master] = {"step": state[f"step.{i}"].to(master.device), **moments}
        for i, own in enumerate(self.own):
            own.copy_(state[f"objective.{i}"])
            self.optimiser.state.pop(own, None)
            moments = {n: state.get(f"objective.{n}.{i}") for n in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self.optimiser.state[own] = moments
        for i, value in enumerate(self.reference):
            value.copy_(state[f"reference.{i}"])
        self.policy.changed()
        self.policy.version = int(state["counts"][3])


def _numbered(labels: Sequence[int]) -> torch.Tensor:
    """The same labels from 0 on, none left out."""
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1])


@torch.no_grad()
def load_weights(policy: Any, weights: Weights, directory: Path) -> None:
    """Give a freshly loaded policy the weights of a checkpoint, for stages that do not train."""
    prepare(policy, weights)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    state = _read(directory, len(parameters))
    for i, parameter in enumerate(parameters):
        parameter.copy_(state[f"parameter.{i}"])
    policy.changed()
    policy.version = int(state["counts"][3])


def prepare(policy: Any, weights: Weights) -> None:
    """Let a weights part choose what moves, once per policy."""
    if not getattr(policy, "prepared", False):
        policy.model = weights.prepare(policy.model)
        policy.prepared = True


def _read(directory: Path, parameters: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    file = directory / "learner.safetensors"
    if not file.exists():
        advice = f"delete {directory} to fall back to an earlier one"
        raise CheckpointError(f"no {file}; the checkpoint is incomplete, {advice}")
    state = load_file(file)
    if f"parameter.{parameters - 1}" not in state or f"parameter.{parameters}" in state:
        raise CheckpointError(f"{file} holds other weights than the {parameters} trained here; same recipe?")
    return state
