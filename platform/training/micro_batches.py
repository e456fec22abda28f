"""A batch in parts that are small enough for the memory; `auto` finds out how small by trying."""

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
from derain.training.process.device import layout
from derain.training.process.distributed import Rank

log = logging.getLogger(__name__)

Rehearse = Callable[[Batch[Tensor]], None]
"""A step's work on a batch that changes nothing; raises torch's error where memory ends."""


class MicroBatches:
    """Cuts batches as `train.micro_batch_size` says."""

    def __init__(self, train: TrainConfig, rank: Rank, rehearse: Rehearse) -> None:
        self._train = train
        self._rank = rank
        self._rehearse = rehearse
        self._fitting: dict[int, int] = {}

    def parts(self, batch: Batch[Tensor]) -> list[Batch[Tensor]]:
        """The batch in micro-batches; their shares add up to its own."""
        size, count = self._size(batch), len(batch.rain)
        return [some(batch, slice(at, at + size)) for at in range(0, count, size)]

    def _size(self, batch: Batch[Tensor]) -> int:
        wanted = self._train.micro_batch_size
        if wanted is None:
            return len(batch.rain)
        if wanted == "auto":
            crop_px = batch.rain.shape[-1]
            if crop_px not in self._fitting:
                self._fitting[crop_px] = self._largest_that_fits(batch)
            return self._fitting[crop_px]
        return wanted

    def _largest_that_fits(self, batch: Batch[Tensor]) -> int:
        """Crops in the fewest equal parts that fit in memory on all ranks.

        Nothing is exchanged meanwhile: a rank that fails must not leave the others waiting.
        """
        batch = self._filled_up(batch)
        count = len(batch.rain)
        parts = fewest_parts(
            count, lambda parts: self._fits(some(batch, slice(0, -(-count // parts))))
        )
        size = self._rank.least(-(-count // parts), batch.rain.device)
        log.info("micro-batches of %d of %d crops a rank", size, count)
        return size

    def _filled_up(self, batch: Batch[Tensor]) -> Batch[Tensor]:
        """The batch, repeated to the most images that this rank gets of its size: the one at hand
        may be the short last one of an epoch."""
        crop_px = batch.rain.shape[-1]
        stages = [stage for stage in self._train.stages if stage.crop_px == crop_px]
        count = -(-max(stage.batch_size for stage in stages) // self._rank.world)
        taken = torch.arange(count, device=batch.rain.device) % len(batch.rain)
        wanted = layout(self._train)
        rain, clean = (side[taken].to(memory_format=wanted) for side in (batch.rain, batch.clean))
        return replace(batch, rain=rain, clean=clean, ids=np.resize(batch.ids, count))

    def _fits(self, batch: Batch[Tensor]) -> bool:
        try:
            self._rehearse(batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return False
        return True


def some(batch: Batch[Tensor], part: slice) -> Batch[Tensor]:
    """Some images of a batch, with their share of the global batch."""
    rain = batch.rain[part]
    share = batch.share * len(rain) / len(batch.rain)
    return replace(batch, rain=rain, clean=batch.clean[part], ids=batch.ids[part], share=share)


def fewest_parts(count: int, fits: Callable[[int], bool]) -> int:
    """Into how few parts `count` crops must be cut: doubled until they fit, then looked for between
    the last two, since each trial is the work of a step.

    Raises DerainError where not even one crop fits.
    """
    parts = 1
    while not fits(parts):
        if parts == count:
            raise DerainError(
                "Not even one crop fits in memory. Give a smaller train.crop_px or network."
            )
        parts = min(2 * parts, count)
    return bisect.bisect_left(range(parts), True, lo=parts // 2 + 1, key=fits)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
