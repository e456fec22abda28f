"""Run a layer on a few rows of an image at a time, so that its hidden values fit the CPU cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from derain.models.shapes import FeatureMap

BLOCK_VALUES = 2**19
"""Hidden values per block of rows: 2 MiB of float32, which fits the cache of a CPU core."""
MAX_UNBLOCKED_VALUES = 8 * BLOCK_VALUES
"""A layer with no more hidden values than this runs whole: blocks would gain nothing."""


def run_in_row_blocks(
    layer: Callable[[Tensor], Tensor], x: FeatureMap, hidden: int, reach: int = 0
) -> Tensor:
    """Return layer(x), computed in blocks of rows where that is faster.

    layer: maps NCHW to NCHW of the same height and width (channels may differ). Each output row
        may depend only on input rows at most `reach` rows away.
    hidden: values that the layer holds per pixel.

    On a CPU without gradients, a large image goes through the layer block by block. The hidden
    values then stay in the cache and need no fresh memory pages, which the system would have to
    clear first: 2.4 times as fast for ConvNeXt's MLP (64 channels, 256x256, one core). Each block
    includes `reach` rows of its neighbours, whose results are dropped, so the layer's own padding
    takes effect at the edges of the image only.

    In all other cases it is a plain call of the layer. In training the hidden values are needed
    again, and computing them twice cost more than it gained (docs/log.md).
    """
    fits = x.shape[0] * x.shape[2] * x.shape[3] * hidden <= MAX_UNBLOCKED_VALUES
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if fits or traced or torch.is_grad_enabled() or x.device.type != "cpu":
        return layer(x)
    # at least eight useful rows per redundant one, even if a block then exceeds the cache
    rows = max(1, 8 * reach, BLOCK_VALUES // (hidden * x.shape[3]))
    images = [_run_one_image(layer, image, rows, reach) for image in x.split(1)]
    return images[0] if len(images) == 1 else torch.cat(images)


def _run_one_image(
    layer: Callable[[Tensor], Tensor], image: FeatureMap, rows: int, reach: int
) -> Tensor:
    out: Tensor | None = None
    for top in range(0, image.shape[2], rows):
        first = max(0, top - reach)
        block = layer(image[:, :, first : top + rows + reach])[:, :, top - first :][:, :, :rows]
        if out is None:  # NHWC in memory
            size = (1, image.shape[2], image.shape[3], block.shape[1])
            out = block.new_empty(size).permute(0, 3, 1, 2)
        out[:, :, top : top + rows] = block
    assert out is not None
    return out
