"""The processes that train one network together, and how the network is spread over them.

With several ranks, the caller has created the process group.

`ddp`: every rank holds the whole network and averages its gradients with the other ranks. `fsdp2`:
every rank holds a part of each weight, gradient and optimiser state. The weights are gathered for
a step and resharded after it, so between steps the network is split over the ranks (torch's
`fully_shard` of the whole network as one group).
"""

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

Kind = Literal["ddp", "fsdp2"]
Result = TypeVar("Result")

MEET_EVERY_S = 5.0


@dataclass(frozen=True)
class Rank:
    """The rank of this process, and the world size."""

    number: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which reports and writes the checkpoints."""
        return self.number == 0

    def barrier(self) -> None:
        """Wait until all ranks have reached this call."""
        if self.world > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all ranks' values, the same on each rank; `values` is overwritten with it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def start_sum(self, values: Tensor) -> "PendingSum":
        """Start summing values over the ranks, without waiting for the result."""
        return PendingSum(
            values, dist.all_reduce(values, async_op=True) if self.world > 1 else None
        )

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of every rank with those of rank 0."""
        if self.world == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def minimum(self, value: int, device: torch.device) -> int:
        """The smallest value of any rank."""
        values = torch.tensor([value], device=device)
        if self.world > 1:
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return int(values)

    def wait_for_all(
        self, work: Callable[[], Result], device: torch.device, every_s: float = MEET_EVERY_S
    ) -> Result:
        """Do work that may take longer on some ranks; returns its result once all ranks are done.

        Ranks that are done meet the others every `every_s` seconds, so that no collective operation
        times out, however long the others take.
        """
        if self.world == 1:
            return work()
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(work)
            while True:
                done, _ = wait([future], every_s)
                if done and future.exception() is not None:
                    return future.result()  # raises it, which ends the other ranks too
                if self.minimum(len(done), device):
                    return future.result()

    def all_equal(self, text: str, device: torch.device) -> bool:
        """Whether every rank has the same text."""
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        return self.minimum(value, device) == -self.minimum(-value, device)


class PendingSum:
    """Values that are being summed over the ranks and copied from the device, while the next step
    runs."""

    def __init__(self, values: Tensor, work: dist.Work | None = None) -> None:
        """`work` is the running all-reduce of `values`, if there are several ranks."""
        self._values = values
        self._work = work
        self._copied: torch.cuda.Event | None = None
        if values.is_cuda:
            self._wait()  # makes the GPU's stream wait, not this process
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def tolist(self) -> list[float]:
        """The sums; waits for them if necessary."""
        if self._copied is not None:
            self._copied.synchronize()
        else:
            self._wait()
        return self._values.tolist()

    def _wait(self) -> None:
        if self._work is not None:
            self._work.wait()


def wrap(
    network: nn.Module,
    kind: Kind,
    device: torch.device,
    rank: Rank,
    *,
    may_skip_parameters: bool = False,
) -> nn.Module:
    """The network wrapped for training on all ranks; with one rank, the network itself.

    With `fsdp2` the network's own trained parameters become DTensors; frozen ones stay whole. If it
    `may_skip_parameters` in a step, DDP looks for these after each forward pass, instead of waiting
    for their gradients for ever.
    """
    if rank.world == 1:
        return network
    if kind == "fsdp2":
        frozen = {item for item in network.parameters() if not item.requires_grad}
        mesh = init_device_mesh(device.type, (rank.world,))
        fully_shard(network, mesh=mesh, ignored_params=frozen)
        return network
    ids = None if device.index is None else [device.index]
    # After its first step DDP orders the gradients anew, by when they came, unless it looks for
    # unused parameters. Their place decides the order in which three or more ranks add them up, so
    # a resumed run, whose first step is another one, would differ in the last digits.
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return DistributedDataParallel(
        network,
        device_ids=ids,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
        find_unused_parameters=may_skip_parameters or rank.world > 2,
    )


@contextlib.contextmanager
def gradient_sync(network: nn.Module, enabled: bool) -> Iterator[None]:
    """Whether a backward pass in this block exchanges gradients with the other ranks, or only
    accumulates them for a later one."""
    if isinstance(network, FSDPModule):
        # Gather and reshard once per step: the ranks may have unequal numbers of micro-batches.
        network.set_requires_gradient_sync(enabled)
        network.set_reshard_after_backward(enabled)
        yield
    elif isinstance(network, DistributedDataParallel) and not enabled:
        with network.no_sync():
            yield
    else:
        yield


def reshard(network: nn.Module) -> None:
    """Drop the gathered weights of an FSDP2 network whose own parts have been overwritten.

    `fully_shard` keeps them after a forward pass without a backward pass, as in a validation.
    """
    if isinstance(network, FSDPModule):
        network.reshard()


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor, on every rank; all ranks must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_tensors(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This rank's parts of the tensors; they share memory with them."""
    return [item.to_local() if isinstance(item, DTensor) else item for item in tensors]


def distributed_like(full: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor, spread over the ranks and laid out in memory as `reference` is.

    The layout matters: the optimiser's fused step walks through the memory of weights and moments
    side by side, whatever their strides.
    """
    if isinstance(reference, DTensor):
        whole = full.to(reference.device).contiguous()
        return distribute_tensor(whole, reference.device_mesh, reference.placements)
    return torch.empty_like(reference, dtype=full.dtype).copy_(full)
