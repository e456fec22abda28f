"""The cost of a network: its parameters, and its multiply-adds for one image."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SIDE_PX = 256


@dataclass(frozen=True)
class Cost:
    """Numbers of parameters, and multiply-adds of a forward pass in evaluation mode."""

    trained_parameters: int
    frozen_parameters: int
    macs: int
    """Multiply-adds for one image, 1 x 3 x `side_px` x `side_px`."""


def cost(network: nn.Module, side_px: int = SIDE_PX) -> Cost:
    """Count a network's parameters and multiply-adds, by one forward pass of a grey square.

    Runs on the CPU. Counted are convolutions, attention and matrix products: half of the operations
    that `torch.utils.flop_counter` reports. Padding channels of zeros are included (`gated_ffn`).
    For a network with experts, it is the cost of one image.
    """
    sizes = [(p.requires_grad, p.numel()) for p in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False)
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # the counter misses fused kernels
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), _without_saved_tensors(), counter:
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


def _without_saved_tensors() -> saved_tensors_hooks:
    """Keep no tensors for the backward pass.

    Gradients must be enabled for the count, because `run_in_row_blocks` computes some rows twice
    without them; this avoids their memory.
    """
    empty = torch.empty(0)
    return saved_tensors_hooks(lambda _: empty, lambda _: empty)
