"""Which pairs go into which shard: the same for the same source and settings.

A plan of ten million pairs takes gigabytes while it is made. So `make` runs in a task: the driver
keeps what grows with the number of shards, and the pairs stay in `lines`, one line of JSON a shard,
which travels between tasks by reference. Names only: no image is opened here.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from derain.data.images.decode import MAX_BYTES
from derain.data.prepared.manifest import Quarantined
from derain.data.prepared.reading import read_pair
from derain.data.prepared.shards import packed_size
from derain.data.sources import discover
from derain.data.sources.discover import Naming
from derain.data.sources.pairs import Pair, samples
from derain.errors import DataError
from derain.storage import files
from derain.storage.remote import Stat

NOTE_BYTES = 512
"""About what the json of a pair takes: only for deciding when a shard is full."""


@dataclass(frozen=True)
class Plan:
    """What the driver knows of a plan."""

    source: Path
    """Absolute: workers have another working directory."""
    out: Path
    dataset: str
    split: str
    notes: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]
    """Images without a partner, and what is no file or too large to be read."""
    fingerprint: str
    """sha256 of names, sizes and labels."""
    names_sha256: str
    """Of all rainy images."""
    settings: Mapping[str, Any]
    pairs: int
    repeated_bytes: int
    """Of clean images that are written again, each for another rainy one."""
    ends: tuple[int, ...]
    """Where each shard's line ends, in bytes."""
    marks: tuple[str, ...]
    """sha256 of each line: it changes when a source file of the shard is written to."""
    newest_ns: int
    """The last change of any source file."""

    def __len__(self) -> int:
        return len(self.ends)

    def identity(self) -> str:
        """What a beginning must have in common with this plan: JSON.

        Not the sizes: an image may be repaired, and `marks` tell which shards it is in.
        """
        settings = dict(self.settings)
        return json.dumps({"names": self.names_sha256, "settings": settings}, sort_keys=True)

    def pairs_of(self, lines: np.ndarray, number: int) -> list[Pair]:
        """The pairs of a shard, read from its line."""
        begin = self.ends[number - 1] if number else 0
        tree = json.loads(lines[begin : self.ends[number]].tobytes())
        return [Pair(*fields) for fields in tree["pairs"]]


def make(
    dataset: str,
    source: Path,
    out: Path,
    split: str | None,
    settings: Mapping[str, Any],
    naming: Naming | None,
    share: tuple[float, float],
    without: Mapping[str, str] | None = None,
) -> tuple[Plan, np.ndarray]:
    """The plan and its lines, as uint8.

    `without` has the sha256 of each clean image that is left out. Raises what `discover.find`
    raises, and DataError where an image of that name is another one.
    """
    found = discover.find(
        dataset, source, split,
        naming=naming, share=share, without=without, clean_once="clean_once" in settings,
    )  # fmt: skip
    _require_same(source, found.leaked, without or {})
    known, pairs, odd = _known(source, found.pairs)
    lines = [_line(shard, known) for shard in _packed(pairs, known, settings["shard_mib"])]
    alone = [Quarantined(item.path, item.reason) for item in found.unpaired]
    row, layout = found.dataset.name, str(found.layout)
    plan = Plan(
        source=source,
        out=out,
        dataset=row,
        split=found.split,
        notes=found.notes,
        quarantined=(*alone, *odd),
        fingerprint=_fingerprint(pairs, known),
        names_sha256=hashlib.sha256("\n".join(it.rain for it in found.pairs).encode()).hexdigest(),
        settings={"dataset": row, "split": found.split, "layout": layout, **settings},
        pairs=len(pairs),
        repeated_bytes=_repeated(pairs, known),
        ends=tuple(accumulate(map(len, lines))),
        marks=tuple(hashlib.sha256(line).hexdigest() for line in lines),
        newest_ns=max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in known.values()),
    )
    return plan, np.frombuffer(b"".join(lines), np.uint8)


def _require_same(source: Path, leaked: Iterable[Pair], without: Mapping[str, str]) -> None:
    """Names alone do not tell: many a dataset has a `target/1.png`."""
    for name, pair in {pair.clean or "": pair for pair in leaked}.items():
        if hashlib.sha256(_clean_bytes(pair, source)).hexdigest() != without[name]:
            raise DataError(
                f"{source}: {name} is another image than the one of this name in --without. Its "
                "list is of another dataset, or TRAIN and TEST of `derainctl leaks` were exchanged."
            )


def _clean_bytes(pair: Pair, source: Path) -> bytes:
    """As they go into a tar."""
    clean = read_pair(pair, source).clean if pair.clean_half else None
    return clean.data if clean else files.read_bytes(source, pair.clean or "")


def _known(
    source: Path, pairs: Sequence[Pair]
) -> tuple[dict[str, Stat], list[Pair], list[Quarantined]]:
    """What is known of each file, the pairs whose files can be read, and the others."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair.files))
    known, odd = dict[str, Stat](), dict[str, str]()
    for name, found in zip(names, files.stats(source, names), strict=True):
        if found is None:
            odd[name] = f"{name}: no file, or a link to none"
        elif found.st_size > MAX_BYTES:
            odd[name] = f"{name}: {found.st_size:,} bytes; at most {MAX_BYTES:,} are read"
        else:
            known[name] = found
    if not odd:
        return known, list(pairs), []
    reasons = [(it, next((odd[name] for name in it.files if name in odd), None)) for it in pairs]
    usable = [pair for pair, reason in reasons if reason is None]
    if not usable:
        raise DataError(f"{source}: no pair can be used, such as {next(iter(odd.values()))}.")
    return known, usable, [Quarantined(it.rain, reason) for it, reason in reasons if reason]


def _packed(pairs: Sequence[Pair], known: Mapping[str, Stat], mib: int) -> Iterator[list[Pair]]:
    """Neighbouring samples, as many as fit into a shard, but at least one."""
    shard: list[Pair] = []
    filled = 0
    for together in samples(pairs):
        names = {name for pair in together for name in pair.files}
        lengths = [known[name].st_size for name in names]
        size = packed_size([NOTE_BYTES * len(together), *lengths])
        if shard and filled + size > mib * 2**20:
            yield shard
            shard, filled = [], 0
        shard += together
        filled += size
    if shard:
        yield shard


def _repeated(pairs: Iterable[Pair], known: Mapping[str, Stat]) -> int:
    """Bytes that the samples take more than the files that they are made of."""
    sets = ({name for pair in together for name in pair.files} for together in samples(pairs))
    written = sum(known[name].st_size for names in sets for name in names)
    return written - sum(stat.st_size for stat in known.values())


def _line(pairs: Sequence[Pair], known: Mapping[str, Stat]) -> bytes:
    fields = [[it.key, it.rain, it.clean, dict(it.labels), it.clean_half, it.scene] for it in pairs]
    stats = [known[name] for pair in pairs for name in pair.files]
    seen = [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]
    return json.dumps({"pairs": fields, "seen": seen}).encode() + b"\n"


def _fingerprint(pairs: Sequence[Pair], known: Mapping[str, Stat]) -> str:
    """sha256 over names and sizes of the source files and the labels."""
    digest = hashlib.sha256()
    for pair in pairs:
        for name in pair.files:
            digest.update(f"{name}\t{known[name].st_size}\n".encode())
        digest.update(json.dumps(dict(pair.labels), sort_keys=True).encode())
    return digest.hexdigest()
