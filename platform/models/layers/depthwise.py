"""Depthwise convolution with a wide kernel, whose gradient takes no longer than it has to."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

STRIP = 3
"""Columns of a kernel whose gradient oneDNN has fast code for; wider ones take 20 times as long."""


class DepthwiseConv2d(nn.Conv2d):
    """nn.Conv2d with one filter a channel and as much padding as keeps the size.

    On a CPU the gradient of the weights is computed strip by strip of the kernel: 64 channels of
    256 x 256 px with 7 x 7, two cores, 85 to 15 ms, where the forward pass takes 5. Elsewhere, and
    where torch.compile or autocast decides what is computed, it is nn.Conv2d itself.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        """Raises ValueError for an even kernel, which cannot keep the size."""
        if kernel % 2 == 0:
            raise ValueError(f"A kernel that keeps the size is odd, got {kernel}")
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """NCHW -> NCHW."""
        decided = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
        if decided or x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        return _Depthwise.apply(x, self.weight, self.bias)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:  # the size stays, so it is a forward pass of the kernel turned
            turned, pad = weight.flip(2, 3), weight.shape[-1] // 2
            of_x = F.conv2d(grad, turned, padding=pad, groups=len(weight))
        return of_x, _of_weight(x, weight, grad), grad.sum((0, 2, 3))


def _of_weight(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the weights: columns `start` and the next ones saw a shifted image."""
    channels, _, height, width = weight.shape
    padded, strips = F.pad(x, (width // 2, width // 2)), []
    for start in range(0, width, STRIP):
        columns = min(STRIP, width - start)
        seen = padded[..., start : start + x.shape[-1] + columns - 1]
        shape, pad = (channels, 1, height, columns), (height // 2, 0)
        strips.append(conv2d_weight(seen, shape, grad, padding=pad, groups=channels))
    return torch.cat(strips, dim=3)
