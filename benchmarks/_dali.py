"""NVIDIA DALI on the CPU: PNG files, and pixels in a .npy file per pair, of which it reads a part.

Its batches are views of DALI's own memory, valid until the next one: its iterator for torch would
copy each.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._crops import Batches, Cut, Files


def png(files: Files, cut: Cut, *, batch_size: int, cores: int = 1) -> Batches:
    """PNG files, of which only the crops are converted and kept; two readers in the same order."""
    from nvidia.dali import fn
    from PIL import Image

    with Image.open(files[0][0]) as image:
        width, height = image.size
    rain_and_clean = [[*map(str, side)] for side in zip(*files, strict=True)]

    def pair() -> Any:
        where, shape = _corner(cut, height, width), [cut.crop_px, cut.crop_px]
        data = [
            fn.readers.file(files=side, shuffle_after_epoch=True, seed=0)[0]
            for side in rain_and_clean
        ]
        sides = [fn.decoders.image_slice(side, where, shape, axes=[0, 1]) for side in data]
        return fn.stack(*sides)

    return _served(pair, cut, len(files), batch_size, cores)


def arrays(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """Pairs as .npy files, mapped into memory, of which the crop alone is copied."""
    from nvidia.dali import fn

    folder.mkdir()
    files = [str(folder / f"{number:05d}.npy") for number in range(len(pairs))]
    for file, pixels in zip(files, pairs, strict=True):
        np.save(file, pixels)

    def pair() -> Any:
        return fn.readers.numpy(
            files=files,
            shuffle_after_epoch=True,
            cache_header_information=True,
            roi_start=_corner(cut, *pairs[0].shape[1:3]),
            roi_shape=[cut.crop_px, cut.crop_px],
            roi_axes=[1, 2],
        )

    return _served(pair, cut, len(pairs), batch_size, cores=1)


def _corner(cut: Cut, height: int, width: int) -> Any:
    from nvidia.dali import fn, types

    rooms = (height - cut.crop_px + 1, width - cut.crop_px + 1)
    draws = (fn.random.uniform(values=[*range(room)], dtype=types.INT32) for room in rooms)
    return fn.stack(*draws)


def _served(pair: Any, cut: Cut, count: int, batch_size: int, cores: int) -> Batches:
    """Epochs of whole batches. On one core nothing is made ahead: it would be made in the time of
    another contestant."""
    from nvidia.dali import pipeline_def

    ahead = cores > 1

    @pipeline_def(
        batch_size=batch_size,
        num_threads=cores,
        device_id=None,
        exec_async=ahead,
        exec_pipelined=ahead,
        enable_conditionals=True,
    )
    def crops() -> Any:
        return _turned(pair(), cut.augment)

    pipeline = crops()
    pipeline.build()
    served = (torch.from_dlpack(pipeline.run()[0].as_tensor()) for _ in itertools.count())
    return lambda: itertools.islice(served, count // batch_size)


def _turned(square: Any, augment: str) -> Any:
    """One of the symmetries that `augment` draws from (derain.data.loading.augment). DALI compiles
    the last `if` into a condition for each pair."""
    from nvidia.dali import fn, types

    if augment == "none":
        return square
    square = fn.reshape(square, layout="FHWC")
    vertical = fn.random.coin_flip() if augment == "dihedral" else 0
    square = fn.flip(square, horizontal=fn.random.coin_flip(), vertical=vertical)
    if augment == "dihedral" and fn.random.coin_flip(dtype=types.BOOL):
        square = fn.transpose(square, perm=[0, 2, 1, 3], transpose_layout=False)
    return square
