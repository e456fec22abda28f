"""What a prepared dataset says of itself: the contract between its writer and its readers.

<folder>/shard-000000.tar ...   standard WebDataset shards
<folder>/index.parquet          one row a sample (INDEX_SCHEMA)
<folder>/manifest.json          written last: that it exists means that the rest is whole
"""

import builtins
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from derain.errors import DataError

FORMAT = 1
MANIFEST = "manifest.json"
INDEX = "index.parquet"

INDEX_SCHEMA = pa.schema(
    [("key", pa.string()), ("shard", pa.string())]
    + [
        (f"{side}_{name}", kind)
        for side in ("rain", "clean")
        for name, kind in (
            ("member", pa.string()),
            ("offset", pa.int64()),
            ("length", pa.int64()),
            ("sha256", pa.string()),
            ("source", pa.string()),
        )
    ]
    + [
        ("json_offset", pa.int64()),
        ("json_length", pa.int64()),
        ("json_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("labels", pa.string()),
    ]
)


@dataclass(frozen=True)
class ShardEntry:
    """One tar: its file name, digest, size in bytes, and how many pairs it holds."""

    name: str
    sha256: str
    bytes: int
    pairs: int


@dataclass(frozen=True)
class Quarantined:
    """A source picture that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The identity of a prepared dataset is the sha256 of this, as written to manifest.json."""

    dataset: str
    split: str
    pairs: int
    bytes: int
    shards: tuple[ShardEntry, ...]
    index_rows_sha256: str
    """Digest of the index's rows, not of its file, which depends on the parquet writer."""
    source_fingerprint: str
    settings: Mapping[str, Any]
    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know, such as a count that is not the published one."""
    format: int = FORMAT

    def to_bytes(self) -> builtins.bytes:
        """The content of manifest.json: the same values always give the same bytes."""
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()

    def sha256(self) -> str:
        """The dataset's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class Prepared:
    """A finished prepared dataset: where it is, its manifest, and one index row a sample."""

    folder: Path
    manifest: Manifest
    index: pa.Table

    def __len__(self) -> int:
        return self.index.num_rows

    def require_clean(self) -> None:
        """Raise DataError where pictures have no clean partner: no loss and no PSNR without it."""
        alone = self.index.column("clean_member").null_count
        if alone:
            raise DataError(
                f"{self.folder}: {alone} of its {len(self)} pictures have no clean partner "
                f"({self.manifest.dataset}). Training and scores against a clean picture need one: "
                "use a paired dataset. `derainctl predict` derains such pictures."
            )

    def column(self, name: str) -> np.ndarray:
        """One column of the index, in sample order."""
        return self.index.column(name).to_numpy()

    def labels(self, name: str) -> list[str]:
        """One label of every sample. Raises DataError where a sample does not have it."""
        values = []
        for row, text in enumerate(self.column("labels")):
            labels = json.loads(text)
            if name not in labels:
                known = ", ".join(labels) or "none"
                raise DataError(
                    f"{self.folder}: sample {self.column('key')[row]} has no label `{name}`, "
                    f"its labels: {known}. Labels come from labels.json beside the pictures."
                )
            values.append(labels[name])
        return values


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Raises DataError that names the file when it is not a manifest of this format."""
    try:
        tree = json.loads(data)
        found = tree["format"]
        if found != FORMAT:
            raise DataError(f"{name}: format {found}; this version reads format {FORMAT}.")
        tree["shards"] = tuple(ShardEntry(**entry) for entry in tree["shards"])
        tree["notes"] = tuple(tree["notes"])
        tree["quarantined"] = tuple(Quarantined(**entry) for entry in tree["quarantined"])
        return Manifest(**tree)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: not a manifest of a prepared dataset ({error}).") from None


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared dataset for reading.

    Raises DataError when there is none, when it was not finished, or when its index does not
    belong to its manifest.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"{path}: no such prepared dataset. Make it with `derainctl prepare`.")
    if not (path / MANIFEST).is_file():
        raise DataError(
            f"{path}: no {MANIFEST}, so it is not a finished prepared dataset. "
            "Run `derainctl prepare` into it again: finished shards are kept."
        )
    manifest = parse_manifest((path / MANIFEST).read_bytes(), str(path / MANIFEST))
    try:
        index = pq.read_table(path / INDEX, schema=INDEX_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path / INDEX}: cannot be read ({error}).") from None
    if rows_sha256(index.to_pylist()) != manifest.index_rows_sha256:
        raise DataError(f"{path / INDEX}: does not match {MANIFEST}. Prepare the dataset again.")
    return Prepared(path, manifest, index)


def rows_sha256(rows: Sequence[Mapping[str, Any]]) -> str:
    """Digest of index rows that does not depend on how parquet stores them."""
    digest = hashlib.sha256()
    names = INDEX_SCHEMA.names
    for row in rows:
        digest.update(json.dumps([row[name] for name in names]).encode() + b"\n")
    return digest.hexdigest()


def write_index(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write index.parquet atomically."""
    table = pa.Table.from_pylist(list(rows), schema=INDEX_SCHEMA)
    temporary = folder / f".{INDEX}.tmp"
    pq.write_table(table, temporary, compression="zstd")
    _publish(temporary, folder / INDEX)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically; to be called when everything else is on disk."""
    temporary = folder / f".{MANIFEST}.tmp"
    temporary.write_bytes(manifest.to_bytes())
    _publish(temporary, folder / MANIFEST)


def _publish(temporary: Path, final: Path) -> None:
    """Rename after the bytes have reached the disk, so that the name never shows half a file."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
