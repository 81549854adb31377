"""Weighted trajectories -> changed weights. The learner knows no method: it reads one weight per sampled token.

A step turns trajectories into rows (one per path, each sampled node in exactly one of them), lays rows that begin alike
out as trees, so that what they share is computed once, cuts these into micro-batches of like size, adds up the
objective's gradients in float32 and moves the parameters once. Where the model computes in bfloat16, float32 master
weights are kept, because updates below bfloat16's resolution would vanish. Several processes divide the trees of a step
among them (`training.distributed`): losses are shares of the whole step's, so gradients only have to be summed.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core import parts
from etude.core.errors import CheckpointError, PartError
from etude.protocols import Batch, Objective, Weights
from etude.training import distributed
from etude.training.critic import evaluate
from etude.training.distributed import Sharded, local
from etude.training.memory import GIB, available, checkpointed, fit
from etude.training.mismatch import Mismatch, check_correction
from etude.trajectory import Episode, Trajectory
from etude.trajectory.forest import Tree, batches, forest

SCHEDULES = ("constant", "linear", "cosine")
NAMES = ("parameter", "reference", "step", "exp_avg", "exp_avg_sq")  # of the tensors in a checkpoint


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
    return_N: np.ndarray | None = None
    """float32 [N]; what a critic should expect before each masked token, NaN where no credit said so."""


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
            length = sum(len(weight_N) for _, _, weight_N, *_ in _paths(trajectory, episode, set()))
            paths = _paths(trajectory, episode, seen)
            score = math.nan if episode.score is None else episode.score
            found += [
                Row(*path, episode=episodes, length=length, group=group, score=score, return_N=return_N)
                for *path, return_N in paths
            ]
            episodes += 1
    return found


def _paths(trajectory: Trajectory, episode: Episode, seen: set[int]) -> list[tuple[np.ndarray, ...]]:
    paths = [_path(trajectory, leaf, seen) for leaf in (*episode.rewritten, episode.leaf)]
    return [path for path in paths if path is not None]


def _path(trajectory: Trajectory, leaf: int, seen: set[int]) -> tuple[np.ndarray, ...] | None:
    """A row's ids, mask, weights, recorded log-probabilities and returns; None where only `seen` nodes have weight."""
    ids, weights, logprobs, returns = [], [], [], []
    for n in trajectory.path(leaf):
        node = trajectory.nodes[n]
        if node.ids_T is None:
            continue
        absent_T = np.full(len(node.ids_T), np.nan, np.float32)
        ids.append(node.ids_T)
        weights.append(absent_T if node.weight_T is None or n in seen else node.weight_T)
        logprobs.append(absent_T if node.logprob_T is None else node.logprob_T)
        returns.append(absent_T if node.return_T is None else node.return_T)
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
    logprob_N, return_N = (np.concatenate(x)[:last][mask_P] for x in (logprobs, returns))
    return ids_P, mask_P, weight_P[mask_P].astype(np.float32), logprob_N, return_N


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
        parallel: str = "data",
        memory: float | None = None,
        correction: str = "none",
        truncation: float = 2.0,
    ):
        """policy: one with a `model` and `logprob`, such as `policies/local`.

        weights: a weights part or its name; applied once per policy.
        lr: AdamW's step size after `warmup` steps; `schedule` (constant, linear, cosine) takes it to zero at `steps`.
        clip: largest gradient norm; 0 turns clipping off.
        micro_tokens: tokens computed at once.
        max_length: the constant of Dr. GRPO's normalisation, in tokens.
        temperature: at which the episodes were sampled.
        correction: of what sampler and learner differ by (none, truncate, recompute), cut at `truncation`; see
            `etude.training.mismatch`.
        parallel: what each of several processes holds: `data`, all weights, or `shard`, its part of the weights, the
            gradient and the optimiser's state.
        memory: GiB that training may take in each process, weights included; None: what the machine has free. A step
            that is foretold to need more (`training.memory`) gets smaller micro-batches, then keeps less for backward.
            A sequence longer than `micro_tokens` is computed whole all the same.

        Raises PartError for settings that do not exist or do not fit.
        """
        check_correction(correction, truncation)
        if schedule not in SCHEDULES:
            raise PartError(f"learner: schedule={schedule!r} is not one of {', '.join(SCHEDULES)}")
        if parallel not in distributed.MODES:
            raise PartError(f"learner: parallel={parallel!r} is not one of {', '.join(distributed.MODES)}")
        if not hasattr(policy, "logprob"):
            raise PartError(f"policy {policy.name!r} has no weights to train; use policies/local")
        self.policy, self.objective = policy, objective
        self.lr, self.schedule, self.warmup, self.steps = lr, schedule, warmup, steps
        self.clip, self.micro_tokens, self.max_length, self.temperature = clip, micro_tokens, max_length, temperature
        self.correction, self.truncation = correction, truncation
        # a policy whose decoder goes on while it is trained has a lock: nothing may be computed while weights move
        self.lock = getattr(policy, "lock", contextlib.nullcontext())
        part: Weights = parts.build(f"weights/{weights}") if isinstance(weights, str) else weights
        prepare(policy, part)
        # dropout is off (eval mode): the probabilities trained are those that were sampled
        shard = parallel == "shard" and distributed.ranks() > 1
        self.checkpointing = False
        if hasattr(policy.model, "config"):
            free = min(distributed.gather(available(policy.model))) if memory is None else memory * GIB
            self.micro_tokens, self.checkpointing = fit(
                policy.model,
                micro_tokens,
                free,
                reference="reference" in objective.needs,
                entropy="entropy" in objective.needs,
                logits_at_once=policy.logits_at_once,
                ranks=distributed.ranks() if shard else 1,
            )
        self.sharded = Sharded(policy.model, layers, policy.score) if shard else None
        model = self.sharded.model if self.sharded else policy.model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # where parameters are float32 they are their own masters, and gradients add up in their `.grad`
        self.exact = all(p.dtype == torch.float32 for p in self.parameters)
        self.masters: list[torch.Tensor] = [local(p.detach()) if self.sharded else p for p in self.parameters]
        if not self.exact:
            self.masters = [p.detach().float().clone() for p in self.parameters]
        # what the objective itself learns
        own: Any = getattr(objective, "parameters", lambda width: [])
        self.own: list[torch.Tensor] = list(own(policy.model.get_output_embeddings().weight.shape[1]))
        self.optimiser = torch.optim.AdamW(
            [*self.masters, *self.own], lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
        )
        self.done = 0
        self.tokens_trained = 0
        self.tokens_computed = 0
        self.seconds_computing = self.seconds_moving = 0.0  # of this process
        # the reference is the policy as it is now; of adapters that is a small copy, and fresh ones change nothing
        needs_reference = "reference" in objective.needs
        self.reference = [local(p.detach()).clone() for p in self.parameters] if needs_reference else []

    def step(self, trajectories: Sequence[Trajectory], updates: int = 1) -> dict[str, float]:
        """`updates` optimiser steps on all that carries weight; figures to log. Without any weight, nothing moves.

        The figures are those of the last, and how far the sampler was from the learner before the first.
        """
        batch, mismatch = rows(trajectories), Mismatch(self.correction, self.truncation)
        figures = self.step_rows(batch, mismatch)
        for _ in range(updates - 1):
            figures = self.step_rows(batch)
        return figures | mismatch.figures()

    def step_rows(self, batch: list[Row], mismatch: Mismatch | None = None) -> dict[str, float]:
        """One optimiser step. mismatch: corrects the rows in place, by the log-probabilities that the step computes."""
        tokens = sum(int(r.mask_P.sum()) for r in batch)
        figures: dict[str, float] = {"rows": len(batch), "tokens": tokens}
        if not tokens:
            return figures | {"loss": 0.0, "gradient_norm": 0.0, "lr": 0.0}
        start, units = time.perf_counter(), self._units(batch)
        with self._computing():
            gradients, shares = self._gradients(batch, units, tokens, mismatch)
        computed = time.perf_counter()
        with self.lock:
            try:
                norm = self._move(gradients)
            finally:
                if self.sharded:
                    self.sharded.fill()
            self.policy.changed()
        self.seconds_computing += computed - start
        self.seconds_moving += time.perf_counter() - computed
        self.tokens_trained += tokens
        self.tokens_computed += sum(len(tree.ids_L) for unit in units for tree in unit)
        return figures | shares | {"gradient_norm": norm, "lr": self.optimiser.param_groups[0]["lr"]}

    def evaluate(self, trajectories: Sequence[Trajectory]) -> None:
        """Where the objective is a critic too, write what it expects before each sampled token: `Node.value_T`."""
        expects = getattr(self.objective, "expects", None)
        if expects is not None and "hidden" in self.objective.needs:
            with self._computing():
                evaluate(self.policy, expects, trajectories, self.micro_tokens)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.sharded:
                stack.enter_context(self.sharded.computing(self.policy))
            if self.checkpointing:
                stack.enter_context(checkpointed(layers(self.policy.model)))
            yield

    def _gradients(
        self, batch: list[Row], units: Sequence[list[Tree]], tokens: int, mismatch: Mismatch | None
    ) -> tuple[list[torch.Tensor], dict[str, float]]:
        """The whole step's gradient of each master (of this rank's part, where it is sharded), and its figures."""
        for parameter in self.parameters:
            parameter.grad = None
        gradients = [] if self.exact else [torch.zeros_like(m) for m in self.masters]
        figures = {"loss": 0.0}
        own = distributed.share([sum(len(tree.ids_L) for tree in unit) for unit in units])
        micros: list[list[Tree]] = list(batches([units[i] for i in own], self.micro_tokens))
        idle = max(distributed.gather(len(micros))) - len(micros)
        for micro in micros:
            given = self._batch(micro, batch, tokens, mismatch)
            loss, metrics = self.objective(given)
            with self.lock if self.checkpointing else contextlib.nullcontext():  # backward computes layers again
                loss.backward()
            self._keep(gradients)
            figures["loss"] += loss.item()
            share = len(given.logprob_N) / tokens
            for name, value in metrics.items():
                figures[name] = figures.get(name, 0.0) + share * value
        for _ in range(idle if self.sharded else 0):
            self._idle()
        if self.exact:
            gradients = [local(torch.zeros_like(p) if p.grad is None else p.grad) for p in self.parameters]
            for parameter in self.parameters:
                parameter.grad = None
        if not self.sharded:  # FSDP2 has summed them
            distributed.add_up(gradients)
        for own in self.own:
            own.grad = torch.zeros_like(own) if own.grad is None else own.grad
        distributed.add_up([own.grad for own in self.own if own.grad is not None])
        return gradients, distributed.total(figures)

    @torch.no_grad()
    def _keep(self, gradients: list[torch.Tensor]) -> None:
        """Add the gradients of parameters that are not float32 to their float32 sums."""
        for gradient, parameter in zip(gradients, self.parameters if gradients else (), strict=True):
            if parameter.grad is not None:
                gradient += parameter.grad.float()
                parameter.grad = None

    def _idle(self) -> None:
        """Take part in gathering and reducing for one micro-batch of other ranks, with a gradient of zero."""
        trees, masks = forest([np.zeros(2, np.int32)], 2), [np.array([False, True])]
        if "reference" in self.objective.needs:
            self._reference_logprob(trees, masks)
        logprob_N = self.policy.logprob(trees, masks)[0]
        (0.0 * logprob_N.sum()).backward()

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

    def _batch(self, trees: Sequence[Tree], batch: list[Row], tokens: int, mismatch: Mismatch | None) -> Batch:
        masks, needs = [r.mask_P for r in batch], self.objective.needs
        reference_logprob_N = self._reference_logprob(trees, masks) if "reference" in needs else None
        logprob_N, entropy_N, hidden_NC = self.policy.logprob(
            trees, masks, temperature=self.temperature, entropy="entropy" in needs, hidden="hidden" in needs
        )
        here = [r for tree in trees for r in tree.rows]
        if mismatch is not None:
            ends = np.cumsum([batch[r].mask_P.sum() for r in here])
            for r, learner_N in zip(here, np.split(logprob_N.detach().cpu().numpy(), ends[:-1]), strict=True):
                batch[r] = mismatch.correct(batch[r], learner_N)
        own, device = [batch[r] for r in here], logprob_N.device
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
            reference_logprob_N=reference_logprob_N,
            entropy_N=entropy_N,
            score_S=torch.tensor([r.score for r in own], dtype=torch.float64, device=device),
            hidden_NC=hidden_NC,
            return_N=_returns(own).to(device) if "hidden" in needs else None,
        )

    @torch.no_grad()
    def _reference_logprob(self, trees: Sequence[Tree], masks: Sequence[np.ndarray]) -> torch.Tensor:
        with self.lock:
            tuned = [m.clone() for m in self.masters] if self.sharded else [p.data for p in self.parameters]
            try:
                self._wear(self.reference)
                return self.policy.logprob(trees, masks, temperature=self.temperature)[0]
            finally:
                self._wear(tuned)

    def _wear(self, values: list[torch.Tensor]) -> None:
        """Let the policy compute with these weights."""
        if self.sharded:  # FSDP2 gathers from memory that must stay where it is, and keeps what it gathered
            torch._foreach_copy_(self.masters, values)
            self.sharded.model.reshard()
            return
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.data = value

    @torch.no_grad()
    def _move(self, gradients: list[torch.Tensor]) -> float:
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.sharded:
            distributed.add_up([norm.square_()])
            norm.sqrt_()
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
            if not self.exact:
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
        """Write all that the next step depends on. Atomicity is the caller's (`training.checkpoint`).

        The file is the same for any number of ranks; all of them call, and the first one writes.
        """
        from safetensors.torch import save_file

        counts = [self.done, self.tokens_trained, self.tokens_computed, self.policy.version]
        state: dict[str, torch.Tensor] = {"counts": torch.tensor(counts)}
        for i, (master, parameter) in enumerate(zip(self.masters, self.parameters, strict=True)):
            own = {"parameter": master.detach(), **self.optimiser.state.get(master, {})}
            if self.reference:
                own["reference"] = self.reference[i]
            for name, part in own.items():
                full = distributed.whole(part, parameter)
                if distributed.rank() == 0:
                    state[f"{name}.{i}"] = full.cpu().contiguous() if self.sharded else full.contiguous()
        for i, own in enumerate(self.own):
            for name, part in {"parameter": own.detach(), **self.optimiser.state.get(own, {})}.items():
                state[f"objective.{name}.{i}"] = part.contiguous()
        if distributed.rank() == 0:
            save_file(state, directory / "learner.safetensors")

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Raises CheckpointError when the file is absent or belongs to other weights."""
        state = _read(directory, len(self.masters))
        self.done, self.tokens_trained, self.tokens_computed = (int(v) for v in state["counts"][:3])
        for i, (master, parameter) in enumerate(zip(self.masters, self.parameters, strict=True)):
            own = {name: distributed.cut(state[f"{name}.{i}"], parameter) for name in NAMES if f"{name}.{i}" in state}
            master.copy_(own["parameter"])
            if not self.exact:
                parameter.copy_(master)
            self.optimiser.state.pop(master, None)
            if "step" in own:
                # the fused step reads memory in its order, so the moments must lie as their parameter does
                moments = {n: torch.empty_like(master).copy_(own[n]) for n in ("exp_avg", "exp_avg_sq")}
                self.optimiser.state[master] = {"step": own["step"].to(master.device), **moments}
            if self.reference:
                self.reference[i].copy_(own["reference"])
        for i, own in enumerate(self.own):
            own.copy_(state[f"objective.parameter.{i}"])
            moments = {n: state.get(f"objective.{n}.{i}") for n in ("step", "exp_avg", "exp_avg_sq")}
            self.optimiser.state.pop(own, None)
            if moments["step"] is not None:
                self.optimiser.state[own] = moments
        if self.sharded:
            self.sharded.fill()
        self.policy.changed()
        self.policy.version = int(state["counts"][3])


def layers(model: Any) -> list[torch.nn.Module]:
    """The decoder's layers."""
    return list(next(m for m in model.get_decoder().modules() if isinstance(m, torch.nn.ModuleList)))


def _returns(rows: Sequence[Row]) -> torch.Tensor:
    each = (np.full(len(r.weight_N), np.nan, np.float32) if r.return_N is None else r.return_N for r in rows)
    return torch.from_numpy(np.concatenate(list(each)))


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
