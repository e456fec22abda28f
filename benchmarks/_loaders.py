"""The peers' loaders: torch's DataLoader over PNG files, LitData and MosaicML Streaming on pixels.

Each yields batches of crops of both images as uint8 tensors. Their datasets crop and augment as
ours does: crop first, then flip or rotate only the crop.
"""

import itertools
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import installed
from derain.data.loading.augment import SYMMETRIES, transform, write_transformed

APART = Path(__file__).parents[1] / "build/peers"
"""Where `make bench` puts peers that need other versions than this package (apart.txt)."""
sys.path.insert(0, str(APART))

Files = Sequence[tuple[Path, Path]]
"""Rainy and clean image of each pair."""
Read = Callable[[Path], np.ndarray]
Cut = Callable[[torch.Tensor], torch.Tensor]
Turn = Callable[[np.ndarray, np.ndarray, int], None]
"""Writes a square under one of the 8 symmetries: out, square, symmetry."""
Batches = Callable[[], Iterator[torch.Tensor]]
"""Starts an epoch; its batches are uint8 (pairs, 2, crop_px, crop_px, 3)."""

CHUNK_BYTES = 64 * 2**20
"""Size of a chunk, the default of both LitData and Streaming."""


def with_pil(path: Path) -> np.ndarray:
    """An image as torchvision's datasets read it: uint8 HWC RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def with_cv2(path: Path) -> np.ndarray:
    """An image as BasicSR reads it, which converts BGR to RGB after the crop: uint8 HWC BGR."""
    import cv2

    return cv2.imread(str(path), cv2.IMREAD_COLOR)


class Png(Dataset):
    """Crops of PNG files, each decoded whole for every crop."""

    def __init__(self, files: Files, read: Read, crop_px: int, augment: str) -> None:
        self._files, self._read = files, read
        self._crop_px, self._augment = crop_px, augment

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> torch.Tensor:
        rain, clean = map(self._read, self._files[number])
        y, x = _corner(rain.shape[:2], self._crop_px)
        window = slice(y, y + self._crop_px), slice(x, x + self._crop_px)
        square = np.stack([rain[window], clean[window]])
        if self._read is with_cv2:
            square = square[..., ::-1]
        return _augmented(square, self._augment, _with_numpy)


def png(
    files: Files, read: Read, crop_px: int, augment: str, *, batch_size: int, processes: int = 0
) -> Batches:
    """torch's DataLoader over PNG files."""
    data = Png(files, read, crop_px, augment)
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=processes)
    return lambda: iter(loader)


def png_readers() -> dict[str, Read]:
    """The installed decoders by peer name."""
    return {"png_pil": with_pil} | ({"png_cv2": with_cv2} if installed("cv2") else {})


def litdata(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """LitData over tensors that it maps into memory from a local folder."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import Cache

    folder.mkdir()
    cache = Cache(str(folder), chunk_bytes=CHUNK_BYTES)
    for number, pair in enumerate(pairs):
        cache[number] = torch.from_numpy(pair.copy())  # tensors are writable, the map is not
    cache.done()
    cache.merge()
    data = StreamingDataset(str(folder), shuffle=True, transform=cut)
    loader = StreamingDataLoader(data, batch_size=batch_size, num_workers=0)
    return lambda: iter(loader)


def mds(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """MosaicML Streaming over arrays in its own format, local and uncompressed."""
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Cutting(StreamingDataset):
        def __getitem__(self, at: int) -> torch.Tensor:
            return cut(torch.from_numpy(super().__getitem__(at)["pair"]))

    shape = ",".join(map(str, pairs[0].shape))
    with MDSWriter(out=str(folder), columns={"pair": f"ndarray:uint8:{shape}"}) as writer:
        for pair in pairs:
            writer.write({"pair": pair})
    clean_stale_shared_memory()
    data = Cutting(local=str(folder), batch_size=batch_size, shuffle=True)
    loader = StreamingDataLoader(data, batch_size=batch_size, num_workers=0)
    return lambda: iter(loader)


RAW = {"litdata": ("litdata", litdata), "mds": ("streaming", mds)}
"""By peer name: the module it needs, and the function that makes its batches."""


def raw_formats(
    folder: Path, pairs: Sequence[np.ndarray], crop_px: int, augment: str, *, batch_size: int
) -> dict[str, Batches]:
    """Batches of each installed peer with a format of its own, after writing the pairs in it.

    With several symmetries LitData runs a second time, as `litdata_our_turns`, with our function
    for them.
    """
    cut = partial(_cut, crop_px=crop_px, augment=augment, turn=_with_numpy)
    found = {
        who: make(folder / who, pairs, cut, batch_size=batch_size)
        for who, (module, make) in RAW.items()
        if installed(module)
    }
    if "litdata" in found and augment != "none":
        ours = partial(_cut, crop_px=crop_px, augment=augment, turn=write_transformed)
        found["litdata_our_turns"] = litdata(folder / "turns", pairs, ours, batch_size=batch_size)
    return found


def endless(batches: Batches) -> Iterator[torch.Tensor]:
    """Batches of epoch after epoch."""
    return itertools.chain.from_iterable(batches() for _ in itertools.count())


def _cut(pair: torch.Tensor, crop_px: int, augment: str, turn: Turn) -> torch.Tensor:
    """Crop and augment a pair: uint8 (2, height, width, 3)."""
    y, x = _corner(pair.shape[1:3], crop_px)
    return _augmented(pair.numpy()[:, y : y + crop_px, x : x + crop_px], augment, turn)


def _corner(size: Sequence[int], crop_px: int) -> tuple[int, int]:
    return random.randrange(size[0] - crop_px + 1), random.randrange(size[1] - crop_px + 1)


def _augmented(square: np.ndarray, augment: str, turn: Turn) -> torch.Tensor:
    out = np.empty(square.shape, np.uint8)
    turn(out, square, random.choice(SYMMETRIES[augment]))
    return torch.from_numpy(out)


def _with_numpy(out: np.ndarray, square: np.ndarray, symmetry: int) -> None:
    """Copy a square under a symmetry as numpy does it fastest: channel by channel from a copy in
    the processor's cache, unless rows stay rows."""
    view = transform(square, symmetry)
    if view.strides[2:] == (3, 1):
        out[...] = view
        return
    view = transform(square.copy(), symmetry)
    for channel in range(3):
        out[..., channel] = view[..., channel]
