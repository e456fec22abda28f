"""A small network, noise and rendered rain, for benchmarks whose subject is not the network.

The tests use them too (tests/tiny.py).
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from derain.data.prepared.index import INDEX, INDEX_SCHEMA, write_index
from derain.data.prepared.manifest import (
    Manifest,
    Prepared,
    ShardEntry,
    open_prepared,
    write_manifest,
)
from derain.data.prepared.shards import write_shards
from derain.data.sources.discover import find_pairs

NETWORK: dict[str, Any] = {
    "name": "fclip_unet",
    "encoder_weights": "random",
    "encoder_width": 4,
    "encoder_layers": [1, 1, 1, 1],
    "decoder_widths": [8, 8, 8, 8, 8],
    "decoder_depths": [1, 1, 1, 1, 1],
    "layer_scale": 0.1,
    "output": "residual",
}
"""Config of a network whose step takes milliseconds."""


class NoisePairs:
    """Pairs of noise images in memory: uint8 (2, side_px, side_px, 3)."""

    left_out: ClassVar[dict[int, str]] = {}

    def __init__(self, count: int, side_px: int) -> None:
        shape = (count, 2, side_px, side_px, 3)
        self._pairs = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, sample: int) -> np.ndarray:
        return self._pairs[sample]


def write_dataset(
    source: Path, out: Path, *, shards: int = 2, pairs: int | None = None
) -> Prepared:
    """The shards, index and manifest of a paired folder, or of its first `pairs` pairs.

    As `derainctl prepare` writes them, but in this process without Ray, whose workers would keep
    the cores busy, and with the pairs dealt to `shards` shards in turn.
    """
    out.mkdir()
    found = find_pairs("paired", source).pairs[:pairs]
    written = [
        write_shards(found[number::shards], source, out / f"shard-{number:06d}.tar")
        for number in range(shards)
    ]
    entries = tuple(entry for shard in written for entry in shard.entries)
    digest = write_index(out / INDEX, (shard.rows for shard in written))
    count = sum(entry.pairs for entry in entries)
    write_manifest(out, Manifest("paired", "train", count, 0, entries, digest, "", {}))
    return open_prepared(out)


def write_index_only(folder: Path, pairs: int, *, a_shard: int = 500) -> Path:
    """The index and the manifest of a dataset of so many pairs, whose shards do not exist.

    Names and digests as long as real ones, and as hard to compress.
    """
    folder.mkdir()
    shards = [f"many-{number:06d}.tar" for number in range(-(-pairs // a_shard))]
    tables = (
        _index_rows(begin, min(a_shard, pairs - begin), shards[begin // a_shard])
        for begin in range(0, pairs, a_shard)
    )
    digest = write_index(folder / INDEX, tables)
    sizes = [min(a_shard, pairs - a_shard * number) for number in range(len(shards))]
    entries = tuple(
        ShardEntry(name, 0, size, "0" * 64) for name, size in zip(shards, sizes, strict=True)
    )
    write_manifest(folder, Manifest("paired", "train", pairs, 0, entries, digest, "", {}))
    return folder


def _index_rows(begin: int, count: int, shard: str) -> pa.Table:
    numbers = np.arange(begin, begin + count)
    lengths = 200_000 + numbers * 7919 % 100_000
    offsets = np.cumsum(3 * lengths)
    keys = [f"{number:09d}" for number in numbers]
    columns: dict[str, Any] = {"key": keys, "shard": [shard] * count, "labels": ["{}"] * count}
    columns |= {"width": [512] * count, "height": [512] * count}
    for place, side in enumerate(("rain", "clean", "json")):
        columns[f"{side}_member"] = [f"{key}.{side}.png" for key in keys]
        columns[f"{side}_source"] = [f"{side}/{key}.png" for key in keys]
        columns[f"{side}_offset"] = offsets + place * lengths
        columns[f"{side}_length"] = lengths
        columns[f"{side}_sha256"] = [
            hashlib.sha256(f"{side}{key}".encode()).hexdigest() for key in keys
        ]
    return pa.table({name: columns[name] for name in INDEX_SCHEMA.names}, schema=INDEX_SCHEMA)


def rendered_datasets(
    folder: Path, *, train: int, held_out: int, size_px: int
) -> tuple[Path, Path]:
    """Prepared datasets of rendered rain, `train` and `held_out` pairs; needs a connected Ray."""
    from derain.data.synthetic.synthesis import synthesize
    from derain.pipelines.prepare.verb import prepare

    for part, count in (("train", train), ("validation", held_out)):
        synthesize(
            None, folder / part, count=count, seed=0, density="mixed", size_px=size_px, part=part
        )
        prepare("paired", folder / part, folder / "prepared" / part, split=part)
    return folder / "prepared" / "train", folder / "prepared" / "validation"
