"""The file names of shards: different for different datasets, and numbered without a gap.

The caches of webdataset and wids go by file name. So names begin with dataset, split and a digest
of the plan: `rain100h-train-0123abcd-000000.tar`.

A part of a plan is written under its own number. In the end that is its name, unless a part gave
no shard (no pair of it could be used) or several (its stored size was only estimated). Then all
shards get another digest, and numbers without gaps. No name is both an old and a new one, so that
renaming can stop anywhere: <out>/.parts/renamed says which names were given, and `take_back`
undoes it before anything else happens.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from derain.data.prepared.manifest import ShardEntry
from derain.errors import DataError
from derain.storage.atomic import new_file

_DIGITS = 8
_LONGEST = 60
"""Longer names of datasets are cut: a file name has at most 255 bytes."""


def prefix(dataset: str, split: str, content: str) -> str:
    """What the names of a dataset's shards begin with; it depends on `content` through a digest."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]
    return f"{_stem(dataset, split)}-{digest}"


def shard_name(prefix: str, number: int) -> str:
    """The name of a shard, or of the first shard of a part."""
    return f"{prefix}-{number:06d}.tar"


def is_shard_name(name: str, dataset: str | None = None, split: str = "") -> bool:
    """Whether `prepare`, in this or an earlier version, may have given this name to a shard; of
    this dataset and split if they are given."""
    stem = r"[\w-]+" if dataset is None else re.escape(_stem(dataset, split))
    pattern = rf"(shard-\d{{6,}}|{stem}-[0-9a-f]{{{_DIGITS}}}-\d{{6,}}(-\d{{2,}})?)\.tar"
    return re.fullmatch(pattern, name, re.ASCII) is not None


def final_names(prefix: str, parts: Sequence[Sequence[ShardEntry]]) -> dict[str, str]:
    """The final name of every shard by the name that it has, in the order of the dataset."""
    counts = [len(part) for part in parts]
    if set(counts) != {1}:
        stem, _, digest = prefix.rpartition("-")
        shape = json.dumps([digest, counts]).encode()
        prefix = f"{stem}-{hashlib.sha256(shape).hexdigest()[:_DIGITS]}"
    written = [entry.name for part in parts for entry in part]
    return {name: shard_name(prefix, number) for number, name in enumerate(written)}


def rename(out: Path, journal: Path, names: Mapping[str, str]) -> None:
    """Give every shard its final name, so that `take_back` can undo it if it is interrupted."""
    moves = {before: after for before, after in names.items() if before != after}
    if not moves:
        return
    with new_file(journal) as file:
        file.write(json.dumps(moves).encode())
    for before, after in moves.items():
        (out / before).replace(out / after)


def take_back(out: Path, journal: Path) -> None:
    """Undo a `rename` after which no manifest was written."""
    if not journal.is_file():
        return
    for before, after in _moves(journal).items():
        if (out / before).is_file():  # an object store copies, then deletes
            (out / after).unlink(missing_ok=True)
        elif (out / after).is_file():
            (out / after).replace(out / before)
    journal.unlink()


def _moves(journal: Path) -> dict[str, str]:
    try:
        return {before: str(after) for before, after in json.loads(journal.read_text()).items()}
    except (ValueError, AttributeError, RecursionError):
        raise DataError(
            f"{journal}: damaged, so nobody knows the order of the shards. Remove the folder, and "
            "prepare again."
        ) from None


def _stem(dataset: str, split: str) -> str:
    """Letters, digits, `-` and `_`: nothing that a pattern of file names would read as its own."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{dataset[:_LONGEST]}-{split[:_LONGEST]}")
