"""The manifest of a prepared dataset: the contract between its writer and its readers.

<folder>/<name>-000000.tar ...   standard WebDataset shards; <name> differs between datasets
<folder>/index.parquet           one row per pair (see `index`)
<folder>/manifest.json           written last: if it exists, everything else is complete
"""

import builtins
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from derain.data.prepared.index import INDEX, read_index, rows_sha256
from derain.errors import DataError
from derain.storage import files
from derain.storage.atomic import new_file

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ShardEntry:
    """One tar: its file name, size in bytes, number of pairs, and the digest of its rows."""

    name: str
    bytes: int
    pairs: int
    rows_sha256: str
    """Digest of its rows in the index. Each row has the offset and the sha256 of a member, and the
    bytes between the members follow from their names: see `integrity.find_problems`. So this one
    digest covers every byte of the tar, and no byte is hashed twice."""


@dataclass(frozen=True)
class Quarantined:
    """A source image that was left out, and why.

    The reason is part of manifest.json: other words give a prepared dataset another identity.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        """Path and reason; most reasons name the path, or the one of the partner."""
        named = self.reason.startswith(f"{self.path}: ")
        return self.reason if named else f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Manifest:
    """A dataset's content and origin; the sha256 of manifest.json is the dataset's identity."""

    dataset: str
    split: str
    pairs: int
    bytes: int
    shards: tuple[ShardEntry, ...]
    index_sha256: str
    """SHA-256 of index.parquet."""
    source_fingerprint: str
    settings: Mapping[str, Any]
    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()
    """What users should know, such as a number of pairs that differs from the published one."""
    duplicates: tuple[tuple[str, ...], ...] = ()
    """Groups of rainy source images with identical bytes."""
    format: int = FORMAT

    def to_bytes(self) -> builtins.bytes:
        """The content of manifest.json; equal manifests have equal bytes.

        Its `checksum` is the sha256 of the same document without that key.
        """
        tree = asdict(self)
        checksum = hashlib.sha256(_document(tree)).hexdigest()
        return _document({**tree, "checksum": checksum})

    def sha256(self) -> str:
        """SHA-256 of manifest.json, the dataset's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class Prepared:
    """A finished prepared dataset: its folder, its manifest, and its index with a row per pair.

    It may be a part: some of the pairs of a prepared dataset, with the manifest of the whole.
    """

    folder: Path
    manifest: Manifest
    index: pa.Table
    whole: "Prepared | None" = field(default=None, repr=False)
    """The dataset that this is a part of."""
    rows: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Of a part: the rows of the whole index that it consists of, int64, rising."""

    def __len__(self) -> int:
        return self.index.num_rows

    def part(self, rows: np.ndarray) -> "Prepared":
        """The part with these rows of the index, int64, rising."""
        return replace(self, index=self.index.take(rows), whole=self, rows=rows)

    def sha256(self) -> str:
        """The identity: the sha256 of the manifest, for a part of the manifest and its rows."""
        digest = self.manifest.sha256()
        if self.whole is None:
            return digest
        return hashlib.sha256(f"{digest} {rows_sha256(self.index)}".encode()).hexdigest()

    def require_clean(self) -> None:
        """Raise DataError if an image has no clean partner, which losses and PSNR need."""
        missing = self.index.column("clean_member").null_count
        if missing:
            raise DataError(
                f"{self.folder}: {missing} of its {len(self)} images have no clean partner "
                f"({self.manifest.dataset}). Training and full-reference metrics need one: "
                "use a paired dataset, or derain these images with `derainctl predict`."
            )

    def column(self, name: str) -> np.ndarray:
        """One column of the index, in the order of the pairs."""
        return self.index.column(name).to_numpy()

    def labels(self, name: str) -> list[str]:
        """The value of one label for every pair. Raises DataError if a pair lacks the label.

        A pair lacks it also if its value is empty or null: other pairs of the dataset have it.
        """
        values = []
        for row, text in enumerate(self.column("labels")):
            labels = json.loads(text)
            if labels.get(name) in (None, ""):
                existing = ", ".join(key for key, value in labels.items() if value) or "none"
                raise DataError(
                    f"{self.folder}: {self.column('key')[row]} has no label `{name}`; its labels: "
                    f"{existing}. Labels come from labels.json beside the source images."
                )
            values.append(labels[name])
        return values


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Parse manifest.json; `name` is the file's name for messages.

    Raises DataError if it is not a manifest of this format, or was changed after it was written.
    """
    try:
        tree = json.loads(data)
        found, checksum = tree["format"], tree.pop("checksum", None)
        if found != FORMAT:
            raise DataError(f"{name}: format {found}; this version supports format {FORMAT} only.")
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
            f"{name}: damaged: the checksum of its content is {expected}, but it states "
            f"{checksum}. Prepare the dataset again."
        )
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared dataset. Raises DataError if it is missing or damaged."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: no such prepared dataset. Create it with `derainctl prepare`.")
    if not path.is_file():
        raise DataError(
            f"{folder}: no {MANIFEST}, so it is not a finished prepared dataset. "
            "Run `derainctl prepare` into it again: finished shards are kept."
        )
    return parse_manifest(path.read_bytes(), str(path))


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared dataset for reading.

    Raises DataError if the folder does not exist, if `prepare` has not finished in it, or if its
    index does not belong to its manifest.
    """
    path = files.locate(folder)
    manifest = read_manifest(path)
    try:
        data = (path / INDEX).read_bytes()
    except OSError as error:
        raise DataError(f"{path / INDEX}: cannot be read ({error}).") from None
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.index_sha256:
        raise DataError(
            f"{path / INDEX}: damaged: expected sha256 {manifest.index_sha256}, found {found}. "
            "`derainctl verify` reports what differs; prepare the dataset again."
        )
    return Prepared(path, manifest, read_index(data, str(path / INDEX)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically. Call it last, when everything else is on disk."""
    with new_file(folder / MANIFEST) as file:
        file.write(manifest.to_bytes())


def _document(tree: Mapping[str, Any]) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()
