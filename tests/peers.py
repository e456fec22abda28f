"""Whether the installed peers of the benchmarks do the work that is timed: `python -m tests.peers
FOLDER`. A process of its own, since it imports what lies in build/peers.
"""

import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image

from benchmarks import _loaders, prepare
from benchmarks._crops import Batches, Files
from benchmarks._writers import SIDES
from benchmarks.common import find_peers_apart
from derain.data.loading.augment import SYMMETRIES, transform

PAIRS, HEIGHT, WIDTH, CROP_PX = 8, 20, 18, 16
EPOCHS = 8


def check_loaders(folder: Path, augment: str, pairs: np.ndarray, files: Files) -> Iterator[str]:
    """Each epoch has every pair as often as the others, in another order, as crops of both images
    under exactly the symmetries that are asked for."""
    folder.mkdir()
    origins = {
        transform(pair[:, y : y + CROP_PX, x : x + CROP_PX], symmetry).tobytes(): (
            pair_at,
            symmetry,
        )
        for pair_at, pair in enumerate(pairs)
        for y in range(HEIGHT - CROP_PX + 1)
        for x in range(WIDTH - CROP_PX + 1)
        for symmetry in range(8)
    }
    peers = _loaders.raw_formats(folder, [*pairs], CROP_PX, augment, batch_size=4)
    opened = _loaders.png_files(files, CROP_PX, augment, batch_size=4)
    for who, batches in (peers | {who: start() for who, start in opened.items()}).items():
        epochs = [[*_origins(batches, origins)] for _ in range(EPOCHS)]
        orders = [tuple(number for number, _ in epoch) for epoch in epochs]
        for order in orders:
            assert Counter(order) == dict.fromkeys(range(PAIRS), len(order) // PAIRS), who
        assert len(set(orders)) == EPOCHS, who
        drawn = {symmetry for epoch in epochs for _, symmetry in epoch}
        assert drawn == set(SYMMETRIES[augment]), (who, drawn)
        yield who


def check_writers(source: Path, folder: Path) -> Iterator[str]:
    """The bytes of all files, unchanged, in tars or in columns of tables."""
    images = sorted(path.read_bytes() for side in SIDES for path in (source / side).iterdir())
    keys = [path.stem for path in (source / SIDES[0]).iterdir()]
    with ThreadPoolExecutor(2) as pool:
        for who, write in prepare.peers(source, keys, pool).items():
            write(folder / who)
            assert sorted(_stored(folder / who)) == images, who
            yield who


def _origins(batches: Batches, origins: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for batch in batches():
        for crop in batch.numpy():
            yield origins[crop.tobytes()]


def _stored(folder: Path) -> Iterator[bytes]:
    tars = sorted(folder.glob("*.tar"))
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()
    if not tars:
        table = pyarrow.parquet.read_table(folder)
        for side in SIDES:
            yield from table[side].to_pylist()


def main(folder: Path) -> None:
    """Print the peers that were checked."""
    shape = (PAIRS, len(SIDES), HEIGHT, WIDTH, 3)
    pairs = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    files = [
        tuple(folder / "source" / side / f"{number}.png" for side in SIDES)
        for number in range(PAIRS)
    ]
    for pair, paths in zip(pairs, files, strict=True):
        for image, path in zip(pair, paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    print(*check_writers(folder / "source", folder))
    for augment in SYMMETRIES:
        print(*check_loaders(folder / augment, augment, pairs, files))


if __name__ == "__main__":
    find_peers_apart()
    main(Path(sys.argv[1]))
