"""Which pairs go into which part: always the same for the same source and options.

Making a plan of ten million pairs takes gigabytes. So `make_plan` runs in a Ray task: the driver
holds only what grows with the number of parts. The pairs are in `lines`, one line of JSON per
part, which tasks pass on by reference. It needs names, sizes and times; only the images of the
first pair are read.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from derain.data.images.decode import MAX_BYTES
from derain.data.prepared.manifest import Quarantined
from derain.data.prepared.reading import Reading, read_pair
from derain.data.prepared.shards import ShardLimits
from derain.data.sources import discover
from derain.data.sources.entries import Ignored
from derain.data.sources.layouts import Dataset
from derain.data.sources.pairs import Pair, group_samples
from derain.errors import DataError
from derain.pipelines.prepare import shard_names
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.packing import limits_of, packed
from derain.storage import files
from derain.storage.remote import Stat


@dataclass(frozen=True)
class Plan:
    """The part of a plan that the driver holds."""

    source: Path
    """Absolute, because workers have another working directory."""
    out: Path
    dataset: str
    split: str
    notes: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]
    """Images without a partner, not a file, or too large to read."""
    left_out: tuple[Ignored, ...]
    """What else was left out though it may be an image, and labels of no image."""
    partial_labels: tuple[str, ...]
    """A note for each label that some images lack."""
    fingerprint: str
    """SHA-256 of names, sizes and labels."""
    first_sha256: str
    """SHA-256 of the files of the first pair: sizes do not tell uncompressed images apart."""
    names_sha256: str
    """SHA-256 of the names of all rainy images."""
    settings: Mapping[str, Any]
    """As the manifest records them."""
    pairs: int
    repeated_bytes: int
    """Bytes of clean images that are stored more than once, for several rainy images each."""
    ends: tuple[int, ...]
    """Offset of the end of each part's line, in bytes."""
    marks: tuple[str, ...]
    """SHA-256 of each line; it changes when a source file of the part does."""
    newest_ns: int
    """Time of the latest change to any source file."""

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def reading(self) -> Reading:
        """How the images are checked and changed."""
        return Reading(decode="decode" in self.settings, convert="convert" in self.settings)

    @property
    def limits(self) -> ShardLimits:
        """How much fits into one shard."""
        return limits_of(self.settings)

    @property
    def prefix(self) -> str:
        """What the names of the shards begin with, see `shard_names`."""
        parts = [dict(self.settings), self.fingerprint, self.first_sha256]
        content = json.dumps(parts, sort_keys=True)
        return shard_names.prefix(self.dataset, self.split, content)

    def identity(self) -> str:
        """JSON that must be equal for an interrupted `prepare` to continue with this plan.

        File sizes are not part of it: an image may be repaired, and `marks` show which parts are
        affected.
        """
        settings = dict(self.settings)
        return json.dumps({"names": self.names_sha256, "settings": settings}, sort_keys=True)

    def pairs_of(self, lines: np.ndarray, number: int) -> list[Pair]:
        """The pairs of a part, parsed from its line."""
        begin = self.ends[number - 1] if number else 0
        tree = json.loads(lines[begin : self.ends[number]].tobytes())
        return [Pair(*fields) for fields in tree["pairs"]]


def make_plan(
    dataset: str | Dataset, source: Path, out: Path, options: PrepareOptions
) -> tuple[Plan, np.ndarray]:
    """The plan, and its lines as (bytes,) uint8.

    Raises what `discover.find_pairs` raises, and DataError if an image that `options.without`
    names has other content than the one that leaked.
    """
    without = options.without or {}
    found = discover.find_pairs(
        dataset, source, options.split,
        naming=options.naming, share=options.share, without=without, clean_once=options.clean_once,
    )  # fmt: skip
    reading = Reading(decode=options.decode, convert=options.convert)
    _check_leaked(source, found.leaked, without, reading)
    stats, pairs, unreadable = _stats(source, found.pairs)
    limits = limits_of(options.settings())
    as_png = options.convert and _is_converted(pairs[0], source, reading)
    lines = [_line(part, stats) for part in packed(pairs, stats, limits, as_png=as_png)]
    unpaired = [Quarantined(item.path, item.reason) for item in found.unpaired]
    row, layout = found.dataset.name, str(found.layout)
    plan = Plan(
        source=source,
        out=out,
        dataset=row,
        split=found.split,
        notes=found.notes,
        quarantined=(*unpaired, *unreadable),
        left_out=found.left_out,
        partial_labels=found.partial_labels,
        fingerprint=_fingerprint(pairs, stats),
        first_sha256=_content_sha256(source, pairs[0].files),
        names_sha256=hashlib.sha256("\n".join(it.rain for it in found.pairs).encode()).hexdigest(),
        settings={
            "dataset": row,
            "split": found.split,
            "layout": layout,
            **({"row": dict(found.dataset.own)} if found.dataset.own else {}),
            **options.settings(),
        },
        pairs=len(pairs),
        repeated_bytes=_repeated_bytes(pairs, stats),
        ends=tuple(accumulate(map(len, lines))),
        marks=tuple(hashlib.sha256(line).hexdigest() for line in lines),
        newest_ns=max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats.values()),
    )
    return plan, np.frombuffer(b"".join(lines), np.uint8)


def _check_leaked(
    source: Path, leaked: Iterable[Pair], without: Mapping[str, str], reading: Reading
) -> None:
    """Raise DataError for a leaked name with other content: many datasets have `target/1.png`."""
    for name, pair in {pair.clean or "": pair for pair in leaked}.items():
        if hashlib.sha256(_clean_bytes(pair, source, reading)).hexdigest() != without[name]:
            raise DataError(
                f"{source}: {name} differs from the image of this name in --without. Its list "
                "belongs to another dataset, or TRAIN and TEST of `derainctl leaks` were swapped."
            )


def _clean_bytes(pair: Pair, source: Path, reading: Reading) -> bytes:
    """The clean image as it is stored in a shard."""
    as_stored = pair.clean_half or reading.convert
    clean = read_pair(pair, source, reading).clean if as_stored else None
    return clean.data if clean else files.read_bytes(source, pair.clean or "")


def _is_converted(pair: Pair, source: Path, reading: Reading) -> bool:
    """Whether a pair is converted: then most likely all are, and the parts are planned so."""
    try:
        images = read_pair(pair, source, reading)
    except DataError:
        return False
    return any(image and image.changes for image in (images.rain, images.clean))


def _stats(
    source: Path, pairs: Sequence[Pair]
) -> tuple[dict[str, Stat], list[Pair], list[Quarantined]]:
    """Size and times of each file, the pairs whose files can be read, and the other pairs.

    The manifest records the reasons: new words, new digest.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair.files))
    stats, reasons = dict[str, Stat](), dict[str, str]()
    for name, stat in zip(names, files.stats(source, names), strict=True):
        if stat is None:
            reasons[name] = f"{name}: no file, or a link to none"
        elif stat.st_size > MAX_BYTES:
            reasons[name] = f"{name}: {stat.st_size:,} bytes; at most {MAX_BYTES:,} are read"
        else:
            stats[name] = stat
    usable, unreadable = [], []
    for pair in pairs:
        reason = next((reasons[name] for name in pair.files if name in reasons), None)
        if reason is None:
            usable.append(pair)
        else:
            unreadable.append(Quarantined(pair.rain, reason))
    if reasons and not usable:
        raise DataError(f"{source}: no pair can be used, such as {next(iter(reasons.values()))}.")
    return stats, usable, unreadable


def _repeated_bytes(pairs: Iterable[Pair], stats: Mapping[str, Stat]) -> int:
    """How many bytes more the samples take than the files that they are made of."""
    sets = ({name for pair in together for name in pair.files} for together in group_samples(pairs))
    written = sum(stats[name].st_size for names in sets for name in names)
    return written - sum(stat.st_size for stat in stats.values())


def _line(pairs: Sequence[Pair], stats: Mapping[str, Stat]) -> bytes:
    fields = [[it.key, it.rain, it.clean, dict(it.labels), it.clean_half, it.scene] for it in pairs]
    used = [stats[name] for pair in pairs for name in pair.files]
    seen = [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in used]
    return json.dumps({"pairs": fields, "seen": seen}).encode() + b"\n"


def _fingerprint(pairs: Sequence[Pair], stats: Mapping[str, Stat]) -> str:
    """SHA-256 of the names and sizes of the source files and of the labels."""
    digest = hashlib.sha256()
    for pair in pairs:
        for name in pair.files:
            digest.update(f"{name}\t{stats[name].st_size}\n".encode())
        labels = {key: value for key, value in pair.labels.items() if value}
        digest.update(json.dumps(labels, sort_keys=True).encode())
    return digest.hexdigest()


def _content_sha256(source: Path, names: Iterable[str]) -> str:
    """SHA-256 of the bytes of files, without those that cannot be read."""
    digest = hashlib.sha256()
    for name in names:
        with contextlib.suppress(OSError):
            digest.update(files.read_bytes(source, name))
    return digest.hexdigest()
