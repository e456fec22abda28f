"""FFCV: raw pixels of both images of a pair in one array field of a .beton file.

FFCV crops each image of a pair elsewhere, so a pair is one field, whose only decoder copies it
whole. `whole` crops after that, as a user does without a decoder of his own; `cropping` reads only
the crop. Both use FFCV's memcpy for the rows. Its batches are views of memory that it uses again:
one is valid until the next is asked for.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._crops import Batches, Cut
from derain.data.loading.augment import SYMMETRIES

os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
"""With TBB's, a process that was held to one core does not end (seen with TBB of Debian 12)."""
EPOCHS = 4
"""An epoch of FFCV's is so many of the dataset: when the first batch is served, up to two more have
been made, which must not count much."""


def whole(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """FFCV's decoder of arrays, then the crop."""
    from ffcv.fields.ndarray import NDArrayDecoder

    return _loader(folder, pairs, [NDArrayDecoder(), _operation(cut)], batch_size)


def cropping(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """A decoder that reads only the crop."""
    return _loader(folder, pairs, [_decoder(cut)], batch_size)


def _loader(
    folder: Path, pairs: Sequence[np.ndarray], steps: list[Any], batch_size: int
) -> Batches:
    from ffcv.fields import NDArrayField
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter

    folder.mkdir()
    path = str(folder / "pairs.beton")
    writer = DatasetWriter(path, {"pair": NDArrayField(np.dtype("u1"), pairs[0].shape)})
    writer.from_indexed_dataset([(pair,) for pair in pairs])
    loader = Loader(
        path,
        batch_size,
        num_workers=1,
        os_cache=True,
        order=OrderOption.RANDOM,
        indices=np.tile(np.arange(len(pairs)), EPOCHS),
        pipelines={"pair": [*steps, ToTensor()]},
        batches_ahead=1,
    )
    return lambda: (batch for (batch,) in loader)


def _operation(cut: Cut) -> Any:
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.operation import Operation

    class Crop(Operation):
        def declare_state_and_memory(self, previous: Any) -> tuple[Any, Any]:
            self.shape = previous.shape
            shape = _shape(previous.shape, cut)
            return replace(previous, shape=shape), AllocationQuery(shape, previous.dtype)

        def generate_code(self) -> Callable:
            copy, numbers = _compiled(self.shape, cut), Compiler.get_iterator()

            def crop(batch, out):
                for number in numbers(batch.shape[0]):
                    copy(batch[number].reshape(-1), out[number].reshape(-1))
                return out[: batch.shape[0]]

            return crop

    return Crop()


def _decoder(cut: Cut) -> Any:
    from ffcv.fields.ndarray import NDArrayDecoder
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler

    class CropDecoder(NDArrayDecoder):
        def declare_state_and_memory(self, previous: Any) -> tuple[Any, Any]:
            shape, dtype = _shape(self.field.shape, cut), np.dtype("u1")
            state = replace(previous, jit_mode=True, shape=shape, dtype=dtype)
            return state, AllocationQuery(shape, dtype)

        def generate_code(self) -> Callable:
            copy, numbers = _compiled(self.field.shape, cut), Compiler.get_iterator()
            read = self.memory_read

            def decode(indices, out, metadata, storage):
                for number in numbers(indices.shape[0]):
                    pair = read(metadata[indices[number]], storage)
                    copy(pair, out[number].reshape(-1))
                return out[: indices.shape[0]]

            return decode

    return CropDecoder()


def _shape(shape: Sequence[int], cut: Cut) -> tuple[int, int, int, int]:
    return int(shape[0]), cut.crop_px, cut.crop_px, int(shape[3])


def _compiled(shape: Sequence[int], cut: Cut) -> Any:
    """Copies a random crop of a flat pair under a random symmetry into a flat pair of crops."""
    from ffcv.libffcv import memcpy
    from ffcv.pipeline.compiler import Compiler

    sides, height, width, channels = (int(length) for length in shape)
    side, row, stride = cut.crop_px, cut.crop_px * channels, width * channels
    symmetries = len(SYMMETRIES[cut.augment])
    copy_row = Compiler.compile(memcpy)

    def copy(pair, out):
        y = np.random.randint(0, height - side + 1)
        x = np.random.randint(0, width - side + 1)
        symmetry = np.random.randint(0, symmetries)
        right, down, transposed = symmetry & 1, symmetry & 2, symmetry & 4
        for image in range(sides):
            start = ((image * height + y) * width + x) * channels
            for line in range(side):
                to = (image * side + line) * row
                at = side - 1 - line if down else line
                if not (right or transposed):
                    copy_row(
                        pair[start + at * stride : start + at * stride + row], out[to : to + row]
                    )
                    continue
                first, step = (
                    (start + at * channels, stride)
                    if transposed
                    else (start + at * stride, channels)
                )
                if right:
                    first, step = first + (side - 1) * step, -step
                for place in range(side):
                    for channel in range(channels):
                        out[to + place * channels + channel] = pair[first + place * step + channel]

    return Compiler.compile(copy)
