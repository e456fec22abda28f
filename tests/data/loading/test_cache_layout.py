"""Where images are in a cache: one after another, a clean image that pairs share once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from derain.data.loading import cache_layout
from derain.data.prepared.index import index_table
from derain.data.prepared.manifest import Manifest, Prepared, ShardEntry


def scenes(seed: int) -> Prepared:
    """Two shards of scenes of one to four pairs, each scene of a size of its own."""
    rng = np.random.default_rng(seed)
    rows = []
    for shard in ("a.tar", "b.tar"):
        for scene in range(rng.integers(1, 12)):
            size = {"height": int(rng.integers(1, 9)), "width": int(rng.integers(1, 9))}
            row = {"shard": shard, "clean_offset": scene * 1024, **size}
            rows += [row] * int(rng.integers(1, 5))
    entries = tuple(ShardEntry(shard, 0, 0, "") for shard in ("a.tar", "b.tar"))
    manifest = Manifest("x", "train", len(rows), 0, entries, "", "", {})
    table: pa.Table = index_table(rows)
    return Prepared(Path("none"), manifest, table)


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_images_follow_each_other_and_shared_ones_are_there_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_layout, "_BLOCK", block)
    for seed in range(10):
        dataset = scenes(seed)
        layout = cache_layout.cache_layout(dataset)
        at, before = 0, None
        for number, row in enumerate(dataset.index.to_pylist()):
            image = 3 * row["height"] * row["width"]
            assert layout.rain[number] == at
            at += image
            if (row["shard"], row["clean_offset"]) != before:
                before, shared = (row["shard"], row["clean_offset"]), at
                at += image
            assert layout.clean[number] == shared
        assert layout.size == at
