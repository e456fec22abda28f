"""The processes that train one network together, and how the network is spread over them.

The process group, where there is one, has been made by the caller.

`ddp`: every rank holds the whole network and averages its gradients with the others. `fsdp2`: a
rank holds a part of every weight, gradient and optimiser state; the weights are gathered for a step
and let go after it, so the network at rest is split over the ranks (torch's `fully_shard` of the
whole network as one group).
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

Kind = Literal["ddp", "fsdp2"]


@dataclass(frozen=True)
class Rank:
    """This process among those that train together."""

    number: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Rank 0 reports and writes the checkpoints."""
        return self.number == 0

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            dist.barrier()

    def total(self, values: Tensor) -> Tensor:
        """The sum of every rank's values, the same on each of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def send(self, values: Tensor) -> "Underway":
        """Values on their way to be summed over the ranks; nobody waits here."""
        return Underway(values, dist.all_reduce(values, async_op=True) if self.world > 1 else None)

    def follow_the_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values of rank 0, in their place."""
        for tensor in tensors if self.world > 1 else ():
            dist.broadcast(tensor, 0)

    def least(self, value: int, device: torch.device) -> int:
        """The smallest value of any rank."""
        values = torch.tensor([value], device=device)
        if self.world > 1:
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return int(values)

    def all_equal(self, text: str, device: torch.device) -> bool:
        """Whether every rank has the same text."""
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        return self.least(value, device) == -self.least(-value, device)


def wrap(network: nn.Module, kind: Kind, device: torch.device, rank: Rank) -> nn.Module:
    """The network as the ranks train it together; alone it is the network itself.

    With `fsdp2` the network's own trained parameters become DTensors; frozen ones stay whole.
    """
    if rank.world == 1:
        return network
    if kind == "fsdp2":
        frozen = {item for item in network.parameters() if not item.requires_grad}
        mesh = init_device_mesh(device.type, (rank.world,))
        fully_shard(network, mesh=mesh, ignored_params=frozen)
        return network
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, device_ids=ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


@contextlib.contextmanager
def exchanging(network: nn.Module, wanted: bool) -> Iterator[None]:
    """A backward pass that exchanges gradients with the other ranks, or keeps them for the next."""
    if isinstance(network, FSDPModule):
        # Gathered once, given back once: ranks with unequal numbers of micro-batches stay in step.
        network.set_requires_gradient_sync(wanted)
        network.set_reshard_after_backward(wanted)
        yield
    elif isinstance(network, DistributedDataParallel) and not wanted:
        with network.no_sync():
            yield
    else:
        yield


def reshard(network: nn.Module) -> None:
    """Drop what was gathered of a network that is spread, whose parts have been written to.

    `fully_shard` keeps it after a forward pass without a backward one, as in a validation.
    """
    if isinstance(network, FSDPModule):
        network.reshard()


class Underway:
    """Values on their way from the other ranks and from the device, while the next step runs."""

    def __init__(self, values: Tensor, work: dist.Work | None = None) -> None:
        """`work` is what the other ranks have a part in."""
        self._values = values
        self._work = work
        self._arrived: torch.cuda.Event | None = None
        if values.is_cuda:
            self._wait()  # that is the GPU's stream, this process goes on
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def tolist(self) -> list[float]:
        """The values, once they are here."""
        if self._arrived is not None:
            self._arrived.synchronize()
        else:
            self._wait()
        return self._values.tolist()

    def _wait(self) -> None:
        if self._work is not None:
            self._work.wait()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, on every rank; all ranks must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of tensors; writing there writes to them."""
    return [item.to_local() if isinstance(item, DTensor) else item for item in tensors]


def like(full: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor, spread over the ranks and laid out in memory as another one is: the
    optimiser's fused step goes through weights and its own numbers side by side."""
    if isinstance(reference, DTensor):
        whole = full.to(reference.device).contiguous()
        return distribute_tensor(whole, reference.device_mesh, reference.placements)
    return torch.empty_like(reference, dtype=full.dtype).copy_(full)
