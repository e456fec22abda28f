"""Splits a batch into parts that fit in memory; `auto` finds their size by trying."""

import bisect
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch
from derain.errors import DerainError
from derain.training.process.device import (
    free_cached_memory,
    is_out_of_memory,
    memory_format,
)
from derain.training.process.distributed import Rank

log = logging.getLogger(__name__)

Probe = Callable[[Batch[Tensor]], None]
"""Does the work of a step on a batch without changing anything; raises torch's error if memory
runs out."""


class MicroBatches:
    """Splits batches as `train.micro_batch_size` says."""

    def __init__(self, train: TrainConfig, rank: Rank, probe: Probe) -> None:
        self._train = train
        self._rank = rank
        self._probe = probe
        self._size_by_crop_px: dict[int, int] = {}

    def parts(self, batch: Batch[Tensor]) -> list[Batch[Tensor]]:
        """The batch in micro-batches; their shares add up to its own."""
        size, count = self._size(batch), len(batch.rain)
        return [subset(batch, slice(at, at + size)) for at in range(0, count, size)]

    def _size(self, batch: Batch[Tensor]) -> int:
        size = self._train.micro_batch_size
        if size is None:
            return len(batch.rain)
        if size == "auto":
            crop_px = batch.rain.shape[-1]
            if crop_px not in self._size_by_crop_px:
                self._size_by_crop_px[crop_px] = self._largest_that_fits(batch)
            return self._size_by_crop_px[crop_px]
        return size

    def _largest_that_fits(self, batch: Batch[Tensor]) -> int:
        """Crops per micro-batch, in the fewest equal parts that fit in memory on all ranks.

        The probes exchange nothing: a rank that runs out of memory must not leave the others
        waiting.
        """
        batch = self._filled_up(batch)
        count = len(batch.rain)
        parts = fewest_parts(
            count, lambda parts: self._fits(subset(batch, slice(0, -(-count // parts))))
        )
        size = self._rank.minimum(-(-count // parts), batch.rain.device)
        log.info("micro-batches of %d of %d crops per rank", size, count)
        return size

    def _filled_up(self, batch: Batch[Tensor]) -> Batch[Tensor]:
        """The batch, repeated to the largest batch of this crop size that the rank can get: the
        present one may be the short last batch of an epoch."""
        crop_px = batch.rain.shape[-1]
        stages = [stage for stage in self._train.stages if stage.crop_px == crop_px]
        count = -(-max(stage.batch_size for stage in stages) // self._rank.world)
        picks = torch.arange(count, device=batch.rain.device) % len(batch.rain)
        layout = memory_format(self._train)
        rain, clean = (side[picks].to(memory_format=layout) for side in (batch.rain, batch.clean))
        return replace(batch, rain=rain, clean=clean, ids=np.resize(batch.ids, count))

    def _fits(self, batch: Batch[Tensor]) -> bool:
        try:
            self._probe(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            free_cached_memory()  # what cuBLAS and cuDNN allocate is not in torch's cache
            return False
        return True


def subset(batch: Batch[Tensor], part: slice) -> Batch[Tensor]:
    """Some images of a batch, with their share of the global batch."""
    rain = batch.rain[part]
    share = batch.share * len(rain) / len(batch.rain)
    return replace(batch, rain=rain, clean=batch.clean[part], ids=batch.ids[part], share=share)


def fewest_parts(count: int, fits: Callable[[int], bool]) -> int:
    """The smallest number of equal parts of `count` crops that fit.

    The number is doubled until the parts fit, then found by bisection between the last two: each
    trial costs as much as a step.

    Raises DerainError if not even one crop fits.
    """
    parts = 1
    while not fits(parts):
        if parts == count:
            raise DerainError(
                "Not even one crop fits in memory. Use a smaller train.crop_px or network."
            )
        parts = min(2 * parts, count)
    return bisect.bisect_left(range(parts), True, lo=parts // 2 + 1, key=fits)
