"""Layers that treat every pixel by itself, run on as many pixels at a time as the cache holds."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SLAB = 2**19
"""Numbers that a CPU's cache holds without effort: 2 MiB of float32."""
CACHED = 8 * SLAB
"""A layer of no more than this is not cut: it would gain nothing."""


def in_slabs(
    layer: Callable[[Tensor], Tensor], x: Float[Tensor, "*pixels channels"], hidden: int
) -> Float[Tensor, "*pixels out_channels"]:
    """layer(x), where `layer` treats every pixel by itself and holds `hidden` numbers for each.

    On a CPU a large picture goes through `layer` slab by slab, so that the hidden numbers never
    leave the cache: 2.4 times as fast (ConvNeXt's MLP, 64 channels, 256x256, one core). Where
    there is a gradient they are computed again for it, slab by slab: 1.5 times as fast, forward
    and backward, and their memory is not needed. Elsewhere it is layer(x) itself.
    """
    pixels = x.flatten(0, -2)
    fits = pixels.shape[0] * hidden <= CACHED
    if fits or x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return layer(x)
    if torch.is_grad_enabled():
        layer = partial(checkpoint, layer, use_reentrant=False, preserve_rng_state=False)
    slabs = [layer(slab) for slab in pixels.split(max(1, SLAB // hidden))]
    return torch.cat(slabs).unflatten(0, x.shape[:-1])
