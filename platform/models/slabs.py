"""Layers that treat every pixel by itself, run on as many pixels at a time as the cache holds."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

SLAB = 2**19
"""Numbers that a CPU's cache holds without effort: 2 MiB of float32."""
CACHED = 8 * SLAB
"""A layer of no more than this is not cut: it would gain nothing."""


def in_slabs(
    layer: Callable[[Tensor], Tensor], x: Float[Tensor, "*pixels channels"], hidden: int
) -> Float[Tensor, "*pixels out_channels"]:
    """layer(x), where `layer` treats every pixel by itself and holds `hidden` numbers for each.

    On a CPU and without gradient, a large picture goes through `layer` slab by slab, so that the
    hidden numbers never leave the cache: 2.4 times as fast (ConvNeXt's MLP, 64 channels, 256x256,
    one core). Elsewhere it is layer(x) itself: in training the hidden numbers are needed again, and
    to compute them twice cost more than it brought (docs/benchmarks.md).
    """
    pixels = x.flatten(0, -2)
    fits = pixels.shape[0] * hidden <= CACHED
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if fits or traced or torch.is_grad_enabled() or x.device.type != "cpu":
        return layer(x)
    out = _slab_by_slab(layer, pixels, max(1, SLAB // hidden))
    return out.unflatten(0, x.shape[:-1])


def _slab_by_slab(
    layer: Callable[[Tensor], Tensor], pixels: Float[Tensor, "pixels channels"], size: int
) -> Float[Tensor, "pixels out_channels"]:
    slabs = pixels.split(size)
    first = layer(slabs[0])
    out = first.new_empty(pixels.shape[0], first.shape[1])
    out[:size] = first
    for slab, place in zip(slabs[1:], out.split(size)[1:], strict=True):
        place.copy_(layer(slab))
    return out
