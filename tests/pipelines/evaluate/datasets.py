"""A prepared dataset without clean images."""

from pathlib import Path

from benchmarks._small import write_dataset
from derain.data.prepared.index import INDEX, index_table, write_index
from derain.data.prepared.manifest import Manifest, Prepared, open_prepared, write_manifest
from tests.folders import write_pairs


def without_clean(folder: Path, *, every: int = 1) -> Prepared:
    """A prepared dataset whose index lists no clean image, or only those of some rows."""
    source = write_pairs(folder / "source", 3, width=220, height=200)
    whole = write_dataset(source, folder / "whole", shards=1)
    rows = whole.index.to_pylist()
    for row in rows[::every]:
        row.update({name: None for name in row if name.startswith("clean_")})
    digest = write_index(whole.folder / INDEX, [index_table(rows)])
    entries = whole.manifest.shards
    manifest = Manifest("real", "test", len(rows), 0, entries, digest, "", {})
    write_manifest(whole.folder, manifest)
    return open_prepared(whole.folder)
