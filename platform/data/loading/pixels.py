"""The pairs of a prepared dataset as pixels: from a cache file, from tars, or a part of either."""

import contextlib
import logging
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from derain.data.loading import cache_notes, undecodable
from derain.data.loading.augment import corner, crop
from derain.data.loading.cache_layout import CacheLayout
from derain.data.loading.undecodable import Reasons
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.storage.locks import lock_shared

log = logging.getLogger(__name__)


class Pixels(Protocol):
    """The pairs of a prepared dataset as pixels, from a cache or from tars."""

    def __len__(self) -> int: ...

    def __getitem__(self, sample: int, /) -> np.ndarray:
        """The rainy and the clean image of one sample: uint8, (2, height, width, 3), RGB.

        Those of the next sample in place of one that cannot be decoded.
        """
        ...

    @property
    def left_out(self) -> Reasons:
        """The samples that cannot be decoded, and why; of tars, those that were read so far."""
        ...


@runtime_checkable
class Decoding(Protocol):
    """Pixels that can be decoded before they are asked for."""

    def decode(self, samples: Sequence[int], /) -> list[Future[None]]:
        """Begin to decode those samples whose pixels are not there; returns what is under way.

        A result raises DataError for a shard that is damaged.
        """
        ...


@runtime_checkable
class Cropping(Protocol):
    """Pixels of which a crop is made without the whole image."""

    def crop(self, sample: int, top: float, left: float, crop_px: int, /) -> np.ndarray:
        """What `augment.crop` cuts from the images of a sample."""
        ...


class MappedPixels:
    """Pixels of a cache file; all processes of the node share its memory pages.

    A lock keeps the file from being removed as long as this object exists.
    """

    def __init__(
        self,
        path: Path,
        layout: CacheLayout,
        left_out: Reasons,
    ) -> None:
        self._arguments = path, layout, left_out
        self._places = layout.places
        self._instead = undecodable.substitutes(len(layout.places), left_out)
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)  # without Python's warning
        lock_shared(self._file)
        # A view of an np.memmap takes a microsecond more than one of its memory.
        self._pixels = np.memmap(self._file, dtype=np.uint8, mode="r").data

    @classmethod
    def is_complete(cls, path: Path, layout: CacheLayout) -> bool:
        """Whether the file has all of its bytes."""
        return path.is_file() and path.stat().st_size == layout.size

    def is_at(self, path: Path) -> bool:
        """Whether the mapped file still has this name; otherwise it was removed meanwhile."""
        return os.path.samestat(os.fstat(self._file.fileno()), path.stat())

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickling maps the file again."""
        return type(self), self._arguments

    def __len__(self) -> int:
        return len(self._places)

    @property
    def left_out(self) -> Reasons:
        """The samples that could not be decoded, and why."""
        return self._arguments[-1]

    def __getitem__(self, sample: int) -> np.ndarray:
        _, _, height, width = self._place(sample)
        return self._window(sample, 0, 0, height, width)

    def crop(self, sample: int, top: float, left: float, crop_px: int) -> np.ndarray:
        """The crop of a sample, as `augment.crop` cuts it from the whole images: a view."""
        _, _, height, width = self._place(sample)
        if height < crop_px or width < crop_px:
            return crop(self[sample], top, left, crop_px)
        y, x = corner((height, width), top, left, crop_px)
        return self._window(sample, y, x, crop_px, crop_px)

    def _window(self, sample: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        rain, clean, _, columns = self._place(sample)
        # One view of both images, wherever the clean one is, because stacking two views would copy
        # whole images for every crop: 1 us an access (a crop takes 25 us).
        strides = (clean - rain, 3 * columns, 3, 1)
        first = rain + 3 * (top * columns + left)
        return np.ndarray((2, height, width, 3), np.uint8, self._pixels, first, strides)

    def _place(self, sample: int) -> tuple[int, int, int, int]:
        """Where the images of a sample are, in the units of the layout, and their height and width;
        those of another one in place of a sample that is left out."""
        if self._instead:
            sample = self._instead.get(sample, sample)
        place: tuple[int, int, int, int] = self._places.item(sample)
        return place


class PartPixels:
    """The pixels of a part of a prepared dataset, which has no cache of its own."""

    def __init__(self, whole: Pixels, part: Prepared) -> None:
        assert part.rows is not None
        self._whole, self._rows, self._folder = whole, part.rows, part.folder

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def left_out(self) -> Reasons:
        """The samples of this part that cannot be decoded, and why."""
        left_out = self._whole.left_out
        numbers = np.flatnonzero(np.isin(self._rows, list(left_out))).tolist()
        return {number: left_out[self._rows.item(number)] for number in numbers}

    def __getitem__(self, sample: int) -> np.ndarray:
        """The next sample of this part, never another part's, replaces one without pixels."""
        pair = self._whole[self._rows.item(sample)]
        if not self._whole.left_out:
            return pair
        for step in range(len(self)):
            row = self._rows.item((sample + step) % len(self))
            pair = self._whole[row]  # of tars, this decides whether it is left out
            if row not in self._whole.left_out:
                return pair
        raise DataError(f"{self._folder}: no pair of this part can be decoded")

    def crop(self, sample: int, top: float, left: float, crop_px: int) -> np.ndarray:
        """The crop of a sample of this part, of which the whole need not decode all."""
        if not isinstance(self._whole, Cropping):
            return crop(self[sample], top, left, crop_px)
        left_out = self._whole.left_out
        for step in range(len(self)):
            row = self._rows.item((sample + step) % len(self))
            if row not in left_out:
                return self._whole.crop(row, top, left, crop_px)
        raise DataError(f"{self._folder}: no pair of this part can be decoded")

    def decode(self, samples: Sequence[int]) -> list[Future[None]]:
        """Begin to decode samples of this part, if the whole can; see `Decoding`."""
        if not isinstance(self._whole, Decoding):
            return []
        return self._whole.decode(self._rows[list(samples)].tolist())


def finished_cache(
    prepared: Prepared,
    layout: CacheLayout,
    path: Path,
    kind: type[MappedPixels] = MappedPixels,
) -> MappedPixels | None:
    """The pixels of a finished cache, None if there is none.

    That takes no lock file, which another user could not write. Whoever removes a cache locks it
    first: so one that still has its name after it was locked stays.
    """
    try:
        if not kind.is_complete(path, layout):
            return None
        left_out = undecodable.read_note(path)
        pixels = kind(path, layout, left_out)
        if not pixels.is_at(path):
            return None
    except FileNotFoundError:
        return None
    log.info("cache: reusing %s for %s", path, prepared.folder)
    undecodable.warn(prepared, left_out)
    with contextlib.suppress(OSError):  # only its owner can mark it as used
        path.touch()
    cache_notes.note_dataset(path, prepared.folder)
    return pixels
