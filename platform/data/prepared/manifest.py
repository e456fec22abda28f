"""The manifest of a prepared dataset: the contract between its writer and its readers.

<folder>/<name>-000000.tar ...   standard WebDataset shards; <name> differs between datasets
<folder>/index.parquet           one row per pair (see `index`)
<folder>/manifest.json           written last: if it exists, everything else is complete
"""

import builtins
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from derain.data.prepared.index import INDEX, INDEX_SCHEMA, IndexFile, columns_sha256
from derain.data.prepared.index_check import open_index
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
        tree = asdict(replace(self, shards=()))
        checksum = hashlib.sha256(_document(tree, self.shards)).hexdigest()
        return _document({**tree, "checksum": checksum}, self.shards)

    def sha256(self) -> str:
        """SHA-256 of manifest.json, the dataset's identity."""
        return self._sha256

    @cached_property
    def shard_numbers(self) -> Mapping[str, int]:
        """The number of each shard by its name."""
        return {entry.name: number for number, entry in enumerate(self.shards)}

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A finished prepared dataset: its folder, its manifest, and its index with a row per pair.

    It may be a part: some of the pairs of a prepared dataset, with the manifest of the whole. Of
    the index only what is asked for is read: all of it takes 1.25 KB a pair.
    """

    folder: Path
    manifest: Manifest
    stored: IndexFile | pa.Table
    """The rows of the index, of a part those of the whole: in their file, or in memory."""
    whole: "Prepared | None" = field(default=None, repr=False)
    """The dataset that this is a part of."""
    rows: np.ndarray | None = field(default=None, repr=False)
    """Of a part: the rows of the whole index that it consists of, int64, rising."""

    def __len__(self) -> int:
        return self.stored.num_rows if self.rows is None else len(self.rows)

    def part(self, rows: np.ndarray) -> "Prepared":
        """The part with these rows of the index, int64, rising."""
        return replace(self, whole=self, rows=rows)

    def sha256(self) -> str:
        """The identity: the sha256 of the manifest, for a part of the manifest and its rows."""
        digest = self.manifest.sha256()
        if self.whole is None:
            return digest
        rows = columns_sha256(map(self.arrow, INDEX_SCHEMA.names))
        return hashlib.sha256(f"{digest} {rows}".encode()).hexdigest()

    def require_clean(self) -> None:
        """Raise DataError if an image has no clean partner, which losses and PSNR need."""
        missing = self._null_count("clean_offset")
        if missing:
            raise DataError(
                f"{self.folder}: {missing} of its {len(self)} images have no clean partner "
                f"({self.manifest.dataset}). Training and full-reference metrics need one: "
                "use a paired dataset, or derain these images with `derainctl predict`."
            )

    def _null_count(self, name: str) -> int:
        if self.rows is None and isinstance(self.stored, IndexFile):
            return self.stored.null_count(name)
        return int(self.arrow(name).null_count)

    @property
    def index(self) -> pa.Table:
        """All columns of the index, in the order of the pairs."""
        return self.columns(INDEX_SCHEMA.names)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of the index, in the order of the pairs."""
        table = self.stored.select(list(names))
        return table if self.rows is None else table.take(self.rows)

    def arrow(self, name: str) -> pa.ChunkedArray:
        """One column of the index, in the order of the pairs."""
        return self.columns([name]).column(0)

    def column(self, name: str) -> np.ndarray:
        """One column of the index as an array of numpy, in the order of the pairs."""
        return self.arrow(name).to_numpy()

    def rows_at(self, numbers: Sequence[int] | np.ndarray) -> pa.Table:
        """The rows of some pairs."""
        found = np.asarray(numbers, np.int64)
        return self.stored.take(found if self.rows is None else self.rows[found])

    def shard_numbers(self) -> np.ndarray:
        """For each pair the number of its shard in the manifest: int32.

        Raises DataError for a shard that the manifest does not list.
        """
        pieces = [np.zeros(0, np.int32), *(numbers for (numbers,) in self.pieces("shard"))]
        numbers = np.concatenate(pieces)
        return numbers if self.rows is None else numbers[self.rows]

    def pieces(self, *names: str) -> Iterator[list[np.ndarray]]:
        """Some columns of numbers, of a part those of the whole, some thousand rows at a time.

        -1 where there is none. A shard is its number in the manifest: int32, a digest of a rainy or
        clean image its 32 bytes. Raises DataError for a shard that is not in the manifest.
        """
        for columns in _batches(self.stored, names):
            yield self._converted(columns, names)

    def around(self, number: int, *names: str) -> tuple[int, list[np.ndarray]]:
        """`pieces` of the rows that are read with a row anyway, and the number of the first."""
        if isinstance(self.stored, IndexFile):
            begin, columns = self.stored.around(number, names)
        else:
            begin, table = 0, self.stored.combine_chunks()
            columns = [table[name].chunk(0) for name in names]
        return begin, self._converted(columns, names)

    def _converted(self, columns: Sequence[pa.Array], names: Sequence[str]) -> list[np.ndarray]:
        kinds = {"shard": self._numbered, "rain_sha256": _digests, "clean_sha256": _digests}
        return [
            kinds.get(name, _as_numpy)(column) for name, column in zip(names, columns, strict=True)
        ]

    def _numbered(self, shards: pa.Array) -> np.ndarray:
        encoded = shards.dictionary_encode()
        number_of = self.manifest.shard_numbers
        found = [number_of.get(name) for name in encoded.dictionary.to_pylist()]
        if None in found:
            name = encoded.dictionary[found.index(None)]
            raise DataError(f"{self.folder}: the index has a shard {name}, the manifest none.")
        return np.array(found, np.int32)[_as_numpy(encoded.indices)]

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


@lru_cache(8)
def parse_manifest(data: bytes, name: str) -> Manifest:
    """Parse manifest.json; `name` is the file's name for messages.

    Raises DataError if it is not a manifest of this format, or was changed after it was written.
    Equal bytes give the same object: a worker opens a dataset eight times, of which a manifest of
    20,000 shards takes 28 MB.
    """
    try:
        tree = json.loads(data)
        found, checksum = tree["format"], tree.pop("checksum", None)
        if found != FORMAT:
            raise DataError(f"{name}: format {found}; this version supports format {FORMAT} only.")
        tree["shards"] = tuple(ShardEntry(**entry) for entry in tree["shards"])
        tree["notes"] = tuple(tree["notes"])
        tree["duplicates"] = tuple(map(tuple, tree["duplicates"]))
        tree["quarantined"] = tuple(Quarantined(**entry) for entry in tree["quarantined"])
        manifest = Manifest(**tree)
        _require_types(manifest)
        written = manifest.to_bytes()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{name}: not a manifest of a prepared dataset ({error}).") from None
    if written != data:
        raise DataError(
            f"{name}: damaged: the checksum of its content is {json.loads(written)['checksum']}, "
            f"but it states {checksum}. Prepare the dataset again."
        )
    return manifest


def _require_types(manifest: Manifest) -> None:
    """Raise TypeError for a value of another type, and for a shard that is not in the folder: they
    may have a right checksum, if another program wrote them."""
    texts = [manifest.dataset, manifest.split, manifest.index_sha256, manifest.source_fingerprint]
    texts += [*manifest.notes, *(name for group in manifest.duplicates for name in group)]
    texts += [text for item in manifest.quarantined for text in (item.path, item.reason)]
    numbers = [manifest.pairs, manifest.bytes]
    for entry in manifest.shards:
        texts += (entry.name, entry.rows_sha256)
        numbers += (entry.bytes, entry.pairs)
        if "/" in entry.name or entry.name in ("", ".", ".."):
            raise TypeError(f"expected the name of a shard, found {entry.name!r}")
    wrong: list[Any] = [text for text in texts if not isinstance(text, str)]
    wrong += [number for number in numbers if type(number) is not int or number < 0]
    if wrong or not isinstance(manifest.settings, dict):
        raise TypeError(f"a value of another type, {(*wrong, manifest.settings)[0]!r}")


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


def open_prepared(folder: str | Path, *, anew: bool = False) -> Prepared:
    """Open a prepared dataset for reading.

    All of its index is compared with the manifest if no process of this node has done so since it
    was changed, and `anew` in any case: see `index_check`.

    Raises DataError if the folder does not exist, if `prepare` has not finished in it, or if its
    index does not belong to its manifest.
    """
    path = files.locate(folder)
    manifest = read_manifest(path)
    file = open_index(path / INDEX, manifest.index_sha256, anew=anew)
    return Prepared(path, manifest, IndexFile(file, str(path / INDEX)))


def _batches(stored: IndexFile | pa.Table, names: Sequence[str]) -> Iterator[list[pa.Array]]:
    if isinstance(stored, IndexFile):
        return stored.batches(names)
    return (batch.columns for batch in stored.select(names).to_batches())


def _as_numpy(numbers: pa.Array) -> np.ndarray:
    """Without `to_numpy`, which imports pandas: 0.3 s and 50 MB in every process."""
    return np.from_dlpack(numbers.fill_null(-1) if numbers.null_count else numbers)


def _digests(texts: pa.Array) -> np.ndarray:
    """The bytes of digests that are written as hexadecimal numbers; zeros where there is none."""
    filled = texts.fill_null("0" * 64) if texts.null_count else texts  # as in `_as_numpy`
    return np.frombuffer(bytes.fromhex("".join(filled.to_pylist())), "V32")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically. Call it last, when everything else is on disk."""
    with new_file(folder / MANIFEST) as file:
        file.write(manifest.to_bytes())


def _document(tree: Mapping[str, Any], shards: Sequence[ShardEntry]) -> bytes:
    """A tree with its `shards`, as `json.dumps` with an indent of 2 and sorted keys writes it.

    That is written in Python and takes 60 us a shard; without an indent it is C, and takes 3 us.
    """
    text = json.dumps({**tree, "shards": []}, indent=2, sort_keys=True)
    # No text in a JSON document has a line break, so these are between entries and keys only.
    inner = ",\n      "
    listed = json.dumps([vars(entry) for entry in shards], sort_keys=True, separators=(inner, ": "))
    if shards:
        between = listed[2:-2].replace(f"}}{inner}{{", "\n    },\n    {\n      ")
        listed = f"[\n    {{\n      {between}\n    }}\n  ]"
    return (text.replace('\n  "shards": []', f'\n  "shards": {listed}', 1) + "\n").encode()
