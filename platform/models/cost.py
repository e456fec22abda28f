"""What a network costs: its parameters, and its multiply-adds for one image."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SIDE_PX = 256


@dataclass(frozen=True)
class Cost:
    """Numbers of parameters, and multiply-adds at 1x3x256x256 in evaluation."""

    trained_parameters: int
    frozen_parameters: int
    macs: int


def cost(network: nn.Module, side_px: int = SIDE_PX) -> Cost:
    """Count a network on the CPU: one forward pass of one grey square.

    Multiply-adds are those of convolutions, attention and matrix products, half of what
    `torch.utils.flop_counter` says; channels of zeros that fill up others count (`gated.py`). A
    network with routes counts what one image takes.
    """
    sizes = [(p.requires_grad, p.numel()) for p in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False)
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # fused kernels are not counted
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), _nothing_kept(), counter:
            network.eval()(torch.full((1, 3, side_px, side_px), 0.5))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, was_training in modes:
            module.training = was_training
    return Cost(
        trained_parameters=sum(size for trained, size in sizes if trained),
        frozen_parameters=sum(size for trained, size in sizes if not trained),
        macs=counter.get_total_flops() // 2,
    )


def _nothing_kept() -> saved_tensors_hooks:
    """A forward pass as in training, since slabs compute some rows twice, in the memory of one in
    evaluation."""
    nothing = torch.empty(0)
    return saved_tensors_hooks(lambda _: nothing, lambda _: nothing)
