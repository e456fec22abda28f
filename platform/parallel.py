"""The processes that train one network together, and how the network is spread over them.

The process group, where there is one, has been made by the caller.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


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

    def mean(self, values: Tensor, share: float) -> Tensor:
        """The mean over the global batch of figures that each rank has for its own share."""
        values = values * share
        if self.world > 1:
            dist.all_reduce(values)
        return values


def wrap(network: nn.Module, device: torch.device, rank: Rank) -> nn.Module:
    """The network as the ranks train it together; alone it is the network itself."""
    if rank.world == 1:
        return network
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
