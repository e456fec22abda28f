"""Training crops per second and core: ours from the cache, peers from PNG files and raw pixels.

Batches of 16 pairs of 128 x 128 cut from pairs of 512 x 512 (rain rendered on photographs), with
the files in the page cache. All work in one process on one core; the first batch of an epoch is
not counted, so start-up costs nobody anything. The limit is a numpy copy of the same crops into
allocated memory, without order, symmetries or batches. The same crops from the cache of compressed
tiles, against those of PNG files and of decoded pixels, and its bytes as a share of the pixels.

Then a first batch and a whole first epoch on all cores, ours with an empty cache: opening,
checking, decoding, writing the cache and serving the batches, against a DataLoader with one process
per core; the first batch of a dataset of 128 pairs and of one of 2,048.

Peers: `make bench` installs them; docs/measurements/benchmarks.md says how to get them by hand.
"""

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks import _loaders
from benchmarks._crops import Batches, Files
from benchmarks._small import write_dataset
from benchmarks.common import ROUNDS, Row, Work, compare, find_peers_apart, main, row
from derain.config.training import Stage
from derain.data.loading.cache import TILES, Pixels, open_pixels
from derain.data.loading.cache_layout import cache_layout
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.synthetic.synthesis import bundled_photographs, synthesize

SCENES, COPIES = 16, 16
"""Rendered pairs, and copies of each in the dataset: noise would not decode like photographs."""
SIZE_PX, CROP_PX, BATCH = 512, 128, 16
COUNTED = 1024
"""Every contestant's time is scaled to this many crops."""
SLOW, FAST = 2, 60
"""Batches timed per round: of contestants that decode, and of those that copy."""
EPOCH_PAIRS, MANY_PAIRS = 128, 2048


def rows(rounds: int = ROUNDS) -> list[Row]:
    """Crops as they are, crops with the 8 symmetries, and what a cold cache costs."""
    find_peers_apart()
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as scratch:
        source = _source(Path(scratch) / "source", SCENES * COPIES)
        prepared = write_dataset(source, Path(scratch) / "prepared", shards=1)
        few = write_dataset(source, Path(scratch) / "few", shards=1, pairs=EPOCH_PAIRS)
        cold = _cold(few, source, Path(scratch), len(cores), rounds)
        cold.append(_first_batch_of_many(Path(scratch), len(cores), rounds))
        pixels = open_pixels(prepared, folder=Path(scratch, "cache"), budget_gib=4)
        tiles = open_tiles(prepared, Path(scratch, "tiles"))
        os.sched_setaffinity(0, {min(cores)})
        try:
            warm = [
                _warm(name, augment, pixels, source, Path(scratch, augment), rounds)
                for name, augment in (("crops", "none"), ("crops, 8 symmetries", "dihedral"))
            ]
            warm.append(_compressed(tiles, pixels, source, rounds))
        finally:
            os.sched_setaffinity(0, cores)
        bytes_ = _compressed_bytes(prepared, Path(scratch, "tiles"))
    return [*warm, bytes_, *cold]


def open_tiles(prepared: Prepared, folder: Path) -> Pixels:
    """The pixels of a compressed cache: the budget is too small for decoded ones, by a byte."""
    return open_pixels(
        prepared, folder=folder, budget_gib=(cache_layout(prepared).size - 1) / 2**30
    )


def _compressed(tiles: Pixels, pixels: Pixels, source: Path, rounds: int) -> Row:
    slow = _loaders.png_files(_files(source), CROP_PX, "none", batch_size=BATCH)
    peers = {who: _timed(_loaders.endless(opened()), SLOW) for who, opened in slow.items()}
    peers["decoded"] = _timed(_ours(_loader(pixels, "none")), FAST)
    ours = _timed(_ours(_loader(tiles, "none")), FAST)
    name = "crops, compressed cache"
    return compare(name, "pairs/s", ours, peers, amount=COUNTED, rounds=rounds)


def _compressed_bytes(prepared: Prepared, folder: Path) -> Row:
    (file,) = folder.glob(f"*{TILES}")
    size = cache_layout(prepared).size
    shards = sum(entry.bytes for entry in prepared.manifest.shards)
    name, unit = "compressed cache", "share of the pixels' bytes"
    peers = {"shards": shards / size, "decoded": 1.0}
    return row(name, unit, file.stat().st_size / size, peers, more_is_better=False)


def _warm(name: str, augment: str, pixels: Pixels, source: Path, folder: Path, rounds: int) -> Row:
    folder.mkdir()
    pairs = [np.asarray(pixels[number]) for number in range(len(pixels))]
    files = _files(source)
    slow = _loaders.png_files(files, CROP_PX, augment, batch_size=BATCH)
    fast = _loaders.raw_formats(folder, pairs, CROP_PX, augment, batch_size=BATCH)
    loader = _loader(pixels, augment)
    peers = {who: _timed(_loaders.endless(opened()), SLOW) for who, opened in slow.items()}
    peers |= {who: partial(_epochs, batches, FAST) for who, batches in fast.items()}
    row = compare(
        name,
        "pairs/s",
        _timed(_ours(loader), FAST),
        peers,
        amount=COUNTED,
        limit=_bare_copy(loader, pixels),
        rounds=rounds,
    )
    shutil.rmtree(folder)
    return row


def _ours(loader: Loader) -> Iterator[object]:
    at = Position()
    while True:
        batch = loader.batch(at)
        yield batch
        at = batch.following


def _timed(batches: Iterator[object], count: int) -> Work:
    """Seconds for COUNTED crops, from the next `count` batches."""

    def run() -> float:
        start = time.perf_counter()
        for _ in itertools.islice(batches, count):
            pass
        return (time.perf_counter() - start) * COUNTED / (count * BATCH)

    return run


def _epochs(batches: Batches, count: int) -> float:
    """Seconds for COUNTED crops, from whole epochs without their first batches: an epoch has only
    hundreds of crops, so its start would weigh too much."""
    seconds, done = 0.0, 0
    while done < count:
        epoch = batches()
        next(epoch)
        start = time.perf_counter()
        done += sum(1 for _ in epoch)
        seconds += time.perf_counter() - start
    return seconds * COUNTED / (done * BATCH)


def _bare_copy(loader: Loader, pixels: Pixels) -> Work:
    """A numpy copy of the crops that the loader takes, into allocated memory."""
    epoch = loader._epochs.crops(0, slice(0, len(pixels)))
    room = SIZE_PX - CROP_PX + 1
    tops, lefts = ((draws * room).astype(int).tolist() for draws in (epoch.top, epoch.left))
    samples = epoch.sample.tolist()
    pairs = [np.asarray(pixels[number]) for number in range(len(pixels))]
    out = np.empty((2, BATCH, CROP_PX, CROP_PX, 3), np.uint8)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(COUNTED // len(samples)):
            for place, (sample, y, x) in enumerate(zip(samples, tops, lefts, strict=True)):
                out[:, place % BATCH] = pairs[sample][:, y : y + CROP_PX, x : x + CROP_PX]
        return time.perf_counter() - start

    return run


def _cold(prepared: Prepared, source: Path, scratch: Path, cores: int, rounds: int) -> list[Row]:
    """From an empty cache to the first batch, and to the last one of an epoch."""
    count = len(prepared)
    files = _files(source)[:count]
    epoch, batch = -(-count // BATCH), 1
    return [
        compare(
            f"first batch of {count}, cold",
            "s",
            _ours_cold(prepared, scratch, batch),
            _peers_cold(files, cores, batch),
            rounds=rounds,
        ),
        compare(
            "first epoch, cold",
            "pairs/s",
            _ours_cold(prepared, scratch, epoch),
            _peers_cold(files, cores, epoch),
            amount=count,
            rounds=rounds,
        ),
    ]


def _first_batch_of_many(scratch: Path, cores: int, rounds: int) -> Row:
    source = _source(scratch / "many-source", MANY_PAIRS)
    prepared = write_dataset(source, scratch / "many", shards=8)
    ours = _ours_cold(prepared, scratch, 1)
    peers = _peers_cold(_files(source), cores, 1)
    found = compare(f"first batch of {MANY_PAIRS}, cold", "s", ours, peers, rounds=rounds)
    shutil.rmtree(prepared.folder)
    return found


def _ours_cold(prepared: Prepared, scratch: Path, batches: int) -> Work:
    """Seconds to some batches from an empty cache, opening the dataset included."""

    def run() -> float:
        start = time.perf_counter()
        dataset = open_prepared(prepared.folder)
        pixels = open_pixels(dataset, folder=scratch / "cold", budget_gib=8, at_once=True)
        for _ in itertools.islice(_ours(_loader(pixels, "flip")), batches):
            pass
        seconds = time.perf_counter() - start
        while batches > 1 and any((scratch / "cold").glob("*.filling-*")):
            time.sleep(0.01)  # until the complete cache has its name
        shutil.rmtree(scratch / "cold")
        return seconds

    return run


def _peers_cold(files: Files, cores: int, batches: int) -> dict[str, Work]:
    def peer(opened: Callable[[], Batches]) -> Work:
        def run() -> float:
            start = time.perf_counter()
            served = opened()()
            for _ in itertools.islice(served, batches):
                pass
            return time.perf_counter() - start

        return run

    peers = _loaders.png_files(files, CROP_PX, "flip", batch_size=BATCH, cores=cores)
    return {who: peer(opened) for who, opened in peers.items()}


def _loader(pixels: Pixels, augment: str) -> Loader:
    stages = [Stage(from_step=0, crop_px=CROP_PX, batch_size=BATCH)]
    return Loader([pixels], Recipe((len(pixels),), seed=0), stages, augment=augment)


def _files(source: Path) -> Files:
    rainy = sorted((source / "rain").iterdir())
    return [(path, source / "clean" / path.name) for path in rainy]


def _source(folder: Path, count: int) -> Path:
    """Pairs of rendered rain as PNG files, each linked COPIES times under different names."""
    photographs = folder / "photographs"
    photographs.mkdir(parents=True)
    for path in bundled_photographs().glob("*.jpg"):
        with Image.open(path) as image:
            large = ImageOps.fit(image.convert("RGB"), (SIZE_PX, SIZE_PX))
        large.save(photographs / f"{path.stem}.png")
    made = folder / "rendered"
    synthesize(photographs, made, count=SCENES, seed=0, density="mixed")
    for side in ("rain", "clean"):
        (folder / side).mkdir()
        scenes = sorted((made / side).iterdir())
        for number in range(count):
            os.link(scenes[number % SCENES], folder / side / f"{number:05d}.png")
    shutil.rmtree(photographs)
    shutil.rmtree(made)
    return folder


if __name__ == "__main__":
    main(rows)
