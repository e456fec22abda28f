"""Depthwise convolution with a wide kernel and a fast gradient on the CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from derain.models.shapes import FeatureMap

STRIP = 3
"""Kernel columns for which oneDNN's weight gradient is fast; wider ones take 20 times as long."""


class DepthwiseConv2d(nn.Conv2d):
    """nn.Conv2d with one filter per channel, padded to keep height and width.

    On a CPU the gradient of the weights is computed in strips of kernel columns: 15 ms instead of
    85 for 64 channels of 256 x 256 px with 7 x 7 on two cores, where the forward pass takes 5.
    On other devices, and under torch.compile or autocast, which choose their own operations, it is
    nn.Conv2d itself.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        """Raises ValueError for an even kernel, which cannot keep height and width."""
        if kernel % 2 == 0:
            raise ValueError(f"The kernel must be odd to keep the image size, got {kernel}")
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """NCHW -> NCHW."""
        transformed = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
        if transformed or x.device.type != "cpu" or not torch.is_grad_enabled():
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
        x_grad = None
        if ctx.needs_input_grad[0]:  # same size, so it is a forward pass with the kernel flipped
            flipped, pad = weight.flip(2, 3), weight.shape[-1] // 2
            x_grad = F.conv2d(grad, flipped, padding=pad, groups=len(weight))
        return x_grad, _weight_gradient(x, weight, grad), grad.sum((0, 2, 3))


def _weight_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the weights, in strips: columns from `start` on see a shifted image."""
    channels, _, height, width = weight.shape
    padded, strips = F.pad(x, (width // 2, width // 2)), []
    for start in range(0, width, STRIP):
        columns = min(STRIP, width - start)
        shifted = padded[..., start : start + x.shape[-1] + columns - 1]
        shape, pad = (channels, 1, height, columns), (height // 2, 0)
        strips.append(conv2d_weight(shifted, shape, grad, padding=pad, groups=channels))
    return torch.cat(strips, dim=3)
