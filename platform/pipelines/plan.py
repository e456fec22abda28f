"""Which pairs go into which shard: the same for the same source and settings.

A plan of ten million pairs takes gigabytes while it is made. So `make` runs in a task: the driver
keeps what grows with the number of shards, and the pairs stay in `lines`, one line of JSON a shard,
which travels between tasks by reference. Names only: no picture is opened here.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from derain.data import files, sources
from derain.data.files import Stat
from derain.data.manifest import Quarantined
from derain.data.pairs import Pair, samples
from derain.data.shards import packed_size
from derain.data.sources import Naming

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
    """Pictures without a partner."""
    fingerprint: str
    settings: Mapping[str, Any]
    pairs: int
    repeated_bytes: int
    """Of clean pictures that are written again, each for another rainy one."""
    ends: tuple[int, ...]
    """Where each shard's line ends, in bytes."""
    marks: tuple[str, ...]
    """sha256 of each line: it changes when a source file of the shard is written to."""
    newest_ns: int
    """The last change of any source file."""

    def __len__(self) -> int:
        return len(self.ends)

    def digest(self) -> str:
        """Names this plan, so that shards of another one are not taken for its own."""
        return hashlib.sha256(
            json.dumps([self.fingerprint, dict(self.settings)], sort_keys=True).encode()
        ).hexdigest()

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
    without: frozenset[str] | None = None,
) -> tuple[Plan, np.ndarray]:
    """The plan and its lines, as uint8. Raises what `sources.find` raises."""
    found = sources.find(
        dataset, source, split,
        naming=naming, share=share, without=without, clean_once="clean_once" in settings,
    )  # fmt: skip
    names = list(dict.fromkeys(name for pair in found.pairs for name in pair.files))
    known = dict(zip(names, files.stats(source, names), strict=True))
    lines = [_line(shard, known) for shard in _packed(found.pairs, known, settings["shard_mib"])]
    row, layout = found.dataset.name, str(found.layout)
    plan = Plan(
        source=source,
        out=out,
        dataset=row,
        split=found.split,
        notes=found.notes,
        quarantined=tuple(Quarantined(item.path, item.reason) for item in found.unpaired),
        fingerprint=_fingerprint(found.pairs, known),
        settings={"dataset": row, "split": found.split, "layout": layout, **settings},
        pairs=len(found.pairs),
        repeated_bytes=_repeated(found.pairs, known),
        ends=tuple(accumulate(map(len, lines))),
        marks=tuple(hashlib.sha256(line).hexdigest() for line in lines),
        newest_ns=max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in known.values()),
    )
    return plan, np.frombuffer(b"".join(lines), np.uint8)


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
