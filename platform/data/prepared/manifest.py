"""What a prepared dataset says of itself: the contract between its writer and its readers.

<folder>/shard-000000.tar ...   standard WebDataset shards
<folder>/index.parquet          one row a sample (INDEX_SCHEMA)
<folder>/manifest.json          written last: that it exists means that the rest is whole
"""

import builtins
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from derain.errors import DataError
from derain.storage import files
from derain.storage.atomic import new_file

FORMAT = 1
MANIFEST = "manifest.json"
INDEX = "index.parquet"
ROW_GROUP = 10_000
"""Rows at least, but for the last group."""

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
    """One tar: its file name, size in bytes, how many pairs it holds, and what must be in it."""

    name: str
    bytes: int
    pairs: int
    rows_sha256: str
    """Digest of its rows in the index. Each row says where a member's bytes are and which sha256
    they have, and the bytes between the members follow from their names: see `shards.problems`.
    So this one figure stands for every byte of the tar, and no byte is hashed twice."""


@dataclass(frozen=True)
class Quarantined:
    """A source image that was left out, and why."""

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
    index_sha256: str
    """Digest of index.parquet."""
    source_fingerprint: str
    settings: Mapping[str, Any]
    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know, such as a count that is not the published one."""
    duplicates: tuple[tuple[str, ...], ...] = ()
    """Rainy source images of equal bytes, group by group."""
    format: int = FORMAT

    def to_bytes(self) -> builtins.bytes:
        """The content of manifest.json: the same values always give the same bytes.

        Its `checksum` is the sha256 of the same document without it.
        """
        tree = asdict(self)
        checksum = hashlib.sha256(_document(tree)).hexdigest()
        return _document({**tree, "checksum": checksum})

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
        """Raise DataError where images have no clean partner: no loss and no PSNR without it."""
        alone = self.index.column("clean_member").null_count
        if alone:
            raise DataError(
                f"{self.folder}: {alone} of its {len(self)} images have no clean partner "
                f"({self.manifest.dataset}). Training and scores against a clean image need one: "
                "use a paired dataset. `derainctl predict` derains such images."
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
                    f"its labels: {known}. Labels come from labels.json beside the images."
                )
            values.append(labels[name])
        return values


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Raises DataError that names the file when it is not an unchanged manifest of this format."""
    try:
        tree = json.loads(data)
        found, checksum = tree["format"], tree.pop("checksum", None)
        if found != FORMAT:
            raise DataError(f"{name}: format {found}; this version reads format {FORMAT}.")
        expected = hashlib.sha256(_document(tree)).hexdigest()
        tree["shards"] = tuple(ShardEntry(**entry) for entry in tree["shards"])
        tree["notes"] = tuple(tree["notes"])
        tree["duplicates"] = tuple(map(tuple, tree["duplicates"]))
        tree["quarantined"] = tuple(Quarantined(**entry) for entry in tree["quarantined"])
        manifest = Manifest(**tree)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name}: not a manifest of a prepared dataset ({error}).") from None
    if manifest.to_bytes() != data:
        raise DataError(
            f"{name}: damaged: its content has the checksum {expected}, it says {checksum}. "
            "Prepare the dataset again."
        )
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished prepared dataset; DataError where there is none."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: no such prepared dataset. Make it with `derainctl prepare`.")
    if not path.is_file():
        raise DataError(
            f"{folder}: no {MANIFEST}, so it is not a finished prepared dataset. "
            "Run `derainctl prepare` into it again: finished shards are kept."
        )
    return parse_manifest(path.read_bytes(), str(path))


def read_index(data: bytes, name: str) -> pa.Table:
    """The rows of an index file. Raises DataError that names it when it cannot be read."""
    try:
        return pq.read_table(pa.BufferReader(data), schema=INDEX_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot be read ({error}).") from None


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared dataset for reading.

    Raises DataError when there is none, when it was not finished, or when its index does not
    belong to its manifest.
    """
    path = files.located(folder)
    manifest = read_manifest(path)
    try:
        data = (path / INDEX).read_bytes()
    except OSError as error:
        raise DataError(f"{path / INDEX}: cannot be read ({error}).") from None
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.index_sha256:
        raise DataError(
            f"{path / INDEX}: damaged: expected sha256 {manifest.index_sha256}, found {found}. "
            "`derainctl verify` says where; prepare the dataset again."
        )
    return Prepared(path, manifest, read_index(data, str(path / INDEX)))


def rows_sha256(rows: pa.Table) -> str:
    """Digest of index rows that does not depend on how they are stored or in what chunks."""
    digest = hashlib.sha256()
    for column in rows.select(INDEX_SCHEMA.names).columns:
        for part in _plain(column):
            digest.update(part)
    return digest.hexdigest()


def _plain(column: pa.ChunkedArray) -> Iterator[builtins.bytes | memoryview]:
    """What a column says, as bytes: which rows have a value, then lengths and texts or numbers."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes()
    if not pa.types.is_string(array.type):
        yield array.fill_null(0).to_numpy().astype("<i8").tobytes()
        return
    array = array.fill_null("")
    yield pc.binary_length(array).to_numpy().astype("<i4").tobytes()
    _, places, text = array.buffers()
    ends = np.frombuffer(places, np.int32)[array.offset : array.offset + len(array) + 1]
    if text is not None and len(array):
        yield memoryview(text)[ends[0] : ends[-1]]


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a piece of the index."""
    return pa.Table.from_pylist(list(rows), schema=INDEX_SCHEMA)


def write_index(path: Path, pieces: Iterable[pa.Table]) -> str:
    """Write pieces of the index, one after the other, as one file; returns its sha256.

    It holds one row group of rows in memory, whatever their number.
    """
    with new_file(path) as file:
        with pq.ParquetWriter(file, INDEX_SCHEMA, compression="zstd") as writer:
            for group in _grouped(pieces):
                writer.write_table(group, row_group_size=len(group))
        file.flush()
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def _grouped(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically; to be called when everything else is on disk."""
    with new_file(folder / MANIFEST) as file:
        file.write(manifest.to_bytes())


def _document(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()
