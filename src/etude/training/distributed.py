"""One run on several processes: `torchrun --nproc-per-node N -m etude run RECIPE`, or `accelerate launch`.

Every rank runs the same program on the same seeds. What takes time is divided: each rank plays its share of the tasks
and computes the gradient of its share of a step's rows, and then all of them hold all trajectories and the same sum.
Rank 0 alone writes. With one process every function here gives back what it was given.

Scale: https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html (FSDP2), after Zhao et al. 2023, "PyTorch
FSDP: Experiences on Scaling Fully Sharded Data Parallel", arXiv:2304.11277.
"""

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.core.errors import EtudeError

if TYPE_CHECKING:
    import torch

MODES = ("data", "shard")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes that a launcher started, if one did; ranks on GPUs take one each."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or ranks() > 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if int(os.environ.get("RANK", 0)):
        os.environ["ETUDE_QUIET"] = "1"  # rank 0 tells how far things are
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()  # none leaves while another still hears from it
    finally:
        dist.destroy_process_group()


def _group() -> Any:
    """torch.distributed where several processes have met, else None; torch is not imported for it."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def ranks() -> int:
    """How many processes make up this run."""
    dist = _group()
    return dist.get_world_size() if dist else 1


def rank() -> int:
    """The place of this process among them."""
    dist = _group()
    return dist.get_rank() if dist else 0


def gather(value: Any) -> list[Any]:
    """Every rank's value, in their order."""
    if ranks() == 1:
        return [value]
    found: list[Any] = [None] * ranks()
    _group().all_gather_object(found, value)
    return found


def first(function: Callable[[], Any]) -> Any:
    """What rank 0 gets from a call, or its error, on every rank; the others only wait. For what is done once."""
    if ranks() == 1:
        return function()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = function()
        except EtudeError as error:
            told[1] = error
    _group().broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]


def first_alone(function: Callable[[], Any]) -> Any:
    """A call on every rank, on the first before the others: for what finds in a cache what an earlier call left."""
    if rank():
        gather(None)
        return function()
    made = function()
    gather(None)
    return made


def anywhere(flag: bool) -> bool:
    """Whether it is so on any rank."""
    return any(gather(flag))


def total(figures: Mapping[str, float]) -> dict[str, float]:
    """Each figure summed over ranks; one that a rank lacks is 0 there."""
    summed: dict[str, float] = {}
    for own in gather(dict(figures)):
        for name, value in own.items():
            summed[name] = summed.get(name, 0) + value
    return summed


def share(costs: Sequence[float]) -> list[int]:
    """Which of the units this rank computes: the dearest go first, each to the rank that has least to do."""
    load = [0.0] * ranks()
    own = []
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = int(np.argmin(load))
        load[least] += costs[i]
        if least == rank():
            own.append(i)
    return sorted(own)


def add_up(tensors: Sequence["torch.Tensor"]) -> None:
    """Replace each tensor by its sum over ranks."""
    if ranks() > 1:
        for tensor in tensors:
            _group().all_reduce(tensor)


class Sharded:
    """A model's copy for training, of which every rank holds a part: float32, cut by FSDP2 along the first axis.

    The copy computes in the model's dtype and sums gradients in float32. While a step is computed the model itself
    holds nothing; after it, it is filled again from the shards, for play needs it whole.
    """

    def __init__(self, model: "torch.nn.Module", layers: Callable[[Any], Sequence["torch.nn.Module"]], score: Any):
        """layers: of a model, the modules that are gathered one by one. score: `policies.local.token_logprob`."""
        import torch
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        some = next(model.parameters())
        # the copy lies in the processor's memory, and each layer moves to the device as it is cut
        known: dict[int, Any] = {
            id(p): torch.nn.Parameter(p.detach().to("cpu", torch.float32, copy=True).contiguous(), p.requires_grad)
            for p in model.parameters()
        }
        self.whole: Any = model
        self.model: Any = copy.deepcopy(model, known)
        mixed = MixedPrecisionPolicy(param_dtype=some.dtype, reduce_dtype=torch.float32)
        settings: dict[str, Any] = {
            "mesh": init_device_mesh(some.device.type, (ranks(),)),
            "mp_policy": MixedPrecisionPolicy() if some.dtype == torch.float32 else mixed,
        }
        for module in (*layers(self.model), self.model):
            cut = fully_shard(module, **settings)
            cut.set_gradient_divide_factor(1.0)  # the losses are shares of one whole: their gradients add up
            cut.set_force_sum_reduction_for_comms(True)
        self.model.token_logprob = score.__get__(self.model)
        register_fsdp_forward_method(self.model, "token_logprob")

    @contextlib.contextmanager
    def computing(self, policy: Any) -> Iterator[None]:
        """Let the policy compute with the shards, and empty the model meanwhile; `fill` it afterwards."""
        for parameter in self.whole.parameters():
            parameter.data = parameter.data.new_empty(0)
        policy.model, policy.score = self.model, lambda model, *args: model.token_logprob(*args)
        try:
            yield
        finally:
            policy.model = self.whole
            del policy.score

    def fill(self) -> None:
        """Give the model the weights of the shards."""
        for parameter, shard in zip(self.whole.parameters(), self.model.parameters(), strict=True):
            parameter.data = shard.detach().full_tensor().to(parameter.dtype)


def local(tensor: "torch.Tensor") -> "torch.Tensor":
    """This rank's part of a tensor of `Sharded`, in the same memory; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[operator]


def cut(full: "torch.Tensor", like: "torch.Tensor") -> "torch.Tensor":
    """This rank's part of a full tensor, where `like` is sharded; else the tensor."""
    if not hasattr(like, "to_local") or full.dim() == 0:
        return full
    parts = full.chunk(ranks())
    return parts[rank()] if rank() < len(parts) else full[:0]


def whole(part: "torch.Tensor", like: "torch.Tensor") -> "torch.Tensor":
    """The full tensor of which each rank has a part, where `like` is sharded; all ranks must ask. Undoes `cut`."""
    if not hasattr(like, "to_local") or part.dim() == 0:
        return part
    from torch.distributed.tensor import DTensor

    where: Any = like
    return DTensor.from_local(
        part, where.device_mesh, where.placements, shape=like.shape, stride=like.stride()
    ).full_tensor()
