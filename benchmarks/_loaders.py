"""The peers' loaders: PNG files with torch's DataLoader, and pixels in the peers' own formats.

Each yields batches of crops of both images as uint8 tensors. Their datasets crop and augment as
ours does: crop first, then flip or rotate only the crop.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks import _dali, _ffcv
from benchmarks._crops import Batches, Cut, Files
from benchmarks.common import installed
from derain.data.loading.augment import write_transformed

Read = Callable[[Path], np.ndarray]

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

    def __init__(self, files: Files, read: Read, cut: Cut) -> None:
        self._files, self._read, self._cut = files, read, cut

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> torch.Tensor:
        rain, clean = map(self._read, self._files[number])
        window = self._cut.window(rain.shape[:2])
        square = np.stack([rain[window], clean[window]])
        if self._read is with_cv2:
            square = square[..., ::-1]
        return self._cut.turned(square)


def png(files: Files, read: Read, cut: Cut, *, batch_size: int, cores: int = 1) -> Batches:
    """torch's DataLoader over PNG files, on several cores with a process for each."""
    processes = cores if cores > 1 else 0
    loader = DataLoader(Png(files, read, cut), batch_size, shuffle=True, num_workers=processes)
    return lambda: iter(loader)


PNG: dict[str, tuple[str, Callable[..., Batches]]] = {
    "png_pil": ("PIL", partial(png, read=with_pil)),
    "png_cv2": ("cv2", partial(png, read=with_cv2)),
    "png_dali": ("nvidia.dali", _dali.png),
}
"""By peer name: the module it needs, and the function that makes its batches."""


def png_files(
    files: Files, crop_px: int, augment: str, *, batch_size: int, cores: int = 1
) -> dict[str, Callable[[], Batches]]:
    """By installed peer what opens the files, whose batches on one core are made when asked for."""
    cut = Cut(crop_px, augment)
    return {
        who: partial(make, files, cut=cut, batch_size=batch_size, cores=cores)
        for who, (module, make) in PNG.items()
        if installed(module)
    }


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
    data = StreamingDataset(str(folder), shuffle=True, transform=lambda pair: cut(pair.numpy()))
    loader = StreamingDataLoader(data, batch_size=batch_size, num_workers=0)
    return lambda: iter(loader)


def mds(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """MosaicML Streaming over arrays in its own format, local and uncompressed."""
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Cutting(StreamingDataset):
        def __getitem__(self, at: int) -> torch.Tensor:
            return cut(super().__getitem__(at)["pair"])

    shape = ",".join(map(str, pairs[0].shape))
    with MDSWriter(out=str(folder), columns={"pair": f"ndarray:uint8:{shape}"}) as writer:
        for pair in pairs:
            writer.write({"pair": pair})
    clean_stale_shared_memory()
    data = Cutting(local=str(folder), batch_size=batch_size, shuffle=True)
    loader = StreamingDataLoader(data, batch_size=batch_size, num_workers=0)
    return lambda: iter(loader)


def grain(folder: Path, pairs: Sequence[np.ndarray], cut: Cut, *, batch_size: int) -> Batches:
    """Grain over raw pixels in one ArrayRecord file, a record a group, so that each is read alone.

    In the calling thread: on one core Grain's threads, 16 by default, only take turns.
    """
    import grain
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir()
    path, shape = folder / "pairs.arrayrecord", pairs[0].shape
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for pair in pairs:
        writer.write(pair.tobytes())
    writer.close()

    def crop(record: bytes) -> np.ndarray:
        return cut(np.frombuffer(record, np.uint8).reshape(shape)).numpy()

    data = grain.MapDataset.source(grain.sources.ArrayRecordDataSource([str(path)]))
    data = data.seed(0).shuffle().repeat().map(crop).batch(batch_size)
    served = iter(data.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
    return lambda: map(torch.from_numpy, itertools.islice(served, len(pairs) // batch_size))


RAW: dict[str, tuple[str, Callable[..., Batches]]] = {
    "litdata": ("litdata", litdata),
    "mds": ("streaming", mds),
    "grain": ("grain", grain),
    "dali_npy": ("nvidia.dali", _dali.arrays),
    "ffcv": ("ffcv", _ffcv.whole),
    "ffcv_own_decoder": ("ffcv", _ffcv.cropping),
}
"""By peer name: the module it needs, and the function that makes its batches."""


def raw_formats(
    folder: Path, pairs: Sequence[np.ndarray], crop_px: int, augment: str, *, batch_size: int
) -> dict[str, Batches]:
    """Batches of each installed peer with a format of its own, after writing the pairs in it.

    With several symmetries LitData runs a second time, as `litdata_our_turns`, with our function
    for them.
    """
    cut = Cut(crop_px, augment)
    found = {
        who: make(folder / who, pairs, cut, batch_size=batch_size)
        for who, (module, make) in RAW.items()
        if installed(module)
    }
    if "litdata" in found and augment != "none":
        ours = Cut(crop_px, augment, write_transformed)
        found["litdata_our_turns"] = litdata(folder / "turns", pairs, ours, batch_size=batch_size)
    return found


def endless(batches: Batches) -> Iterator[torch.Tensor]:
    """Batches of epoch after epoch."""
    return itertools.chain.from_iterable(batches() for _ in itertools.count())
