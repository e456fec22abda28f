"""Layers that see a pixel and its near rows, run on as many rows at a time as the cache holds."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

SLAB = 2**19
"""Numbers that a CPU's cache holds without effort: 2 MiB of float32."""
CACHED = 8 * SLAB
"""A layer of no more than this is not cut: it would gain nothing."""


def in_slabs(
    layer: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch channels height width"],
    hidden: int,
    reach: int = 0,
) -> Float[Tensor, "batch out_channels height width"]:
    """layer(x), where a row of it depends on no row of x further away than `reach`.

    On a CPU and without gradient, a large image goes through `layer` in slabs of rows, so that
    the `hidden` numbers that it holds for a pixel never leave the cache, and take no pages that the
    system has to clear first: 2.4 times as fast (ConvNeXt's MLP, 64 channels, 256x256, one core).
    A slab brings `reach` rows of its neighbours along, whose results are dropped; so what `layer`
    pads with at its edges is seen at the edges of the image only.

    Elsewhere it is layer(x) itself: in training the hidden numbers are needed again, and to compute
    them twice cost more than it brought (docs/log.md).
    """
    fits = x.shape[0] * x.shape[2] * x.shape[3] * hidden <= CACHED
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if fits or traced or torch.is_grad_enabled() or x.device.type != "cpu":
        return layer(x)
    # eight rows for each that is computed for nothing, also where the cache then has to do with it
    rows = max(1, 8 * reach, SLAB // (hidden * x.shape[3]))
    images = [_slab_by_slab(layer, image, rows, reach) for image in x.split(1)]
    return images[0] if len(images) == 1 else torch.cat(images)


def _slab_by_slab(
    layer: Callable[[Tensor], Tensor],
    x: Float[Tensor, "1 channels height width"],
    rows: int,
    reach: int,
) -> Float[Tensor, "1 out_channels height width"]:
    out: Tensor | None = None
    for top in range(0, x.shape[2], rows):
        first = max(0, top - reach)
        slab = layer(x[:, :, first : top + rows + reach])[:, :, top - first :][:, :, :rows]
        if out is None:  # NHWC in memory
            out = slab.new_empty(1, x.shape[2], x.shape[3], slab.shape[1]).permute(0, 3, 1, 2)
        out[:, :, top : top + rows] = slab
    assert out is not None
    return out
