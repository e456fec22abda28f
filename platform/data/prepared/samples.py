"""WebDataset samples: the members of each, and the index rows of its pairs.

A sample is in memory until it is written, because only its size shows whether it still fits into
a shard.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from derain.data.prepared.index import INDEX_SCHEMA
from derain.data.prepared.manifest import Quarantined
from derain.data.prepared.reading import ImageFile, PairImages, Reading, read_pair
from derain.data.prepared.remarks import Remarks, joined
from derain.data.sources.pairs import Pair, group_samples
from derain.errors import DataError

Row = dict[str, Any]

Append = Callable[[str, str, bytes], Row]
"""Writes a member, given its side (`rain`, `clean`, `json`), its name and its bytes; returns its
offset, length and sha256 as columns of the index."""

_dump = json.JSONEncoder(sort_keys=True).encode
"""`json.dumps` would make an encoder for every call."""

_EMPTY = dict.fromkeys(INDEX_SCHEMA.names)
_WIDEST = 64_000_000
"""No image is wider or higher, see MAX_SIDE; plans of sizes depend on its number of digits."""


class Sample:
    """One sample: the rainy image of each pair, the clean image once, and one JSON member.

    Of the members, only the rainy one differs between the rows of its pairs.
    """

    def __init__(self, first: Pair) -> None:
        self._key, self._is_scene = first.sample, first.scene is not None
        self._metadata: list[Row] = []
        self._members: list[tuple[str, str, bytes]] = []
        self.clean: ImageFile | None = None
        """The clean image, once the first pair was added."""

    def __len__(self) -> int:
        """Its number of pairs."""
        return len(self._metadata)

    def add(self, images: PairImages) -> None:
        """Append the rainy image of a pair, and its clean image if it is not in the sample yet."""
        self._metadata.append(_metadata(images.pair, images.rain.size))
        self._append("rain", rain_field(len(self), self._is_scene), images.rain)
        if images.clean and not self.clean:
            self.clean = images.clean
            self._append("clean", "clean", images.clean)

    def end(self) -> None:
        """Append the JSON member."""
        rainy = [name.partition(".")[2] for side, name, _ in self._members if side == "rain"]
        text = _json(self._key, self._metadata, rainy if self._is_scene else None)
        self._members.append(("json", f"{self._key}.json", text))

    def lengths(self) -> list[int]:
        """The size of each member in bytes."""
        return [len(data) for _, _, data in self._members]

    def write(self, append: Append) -> list[Row]:
        """Write the members in their order; returns the index rows of the pairs, without shard."""
        rainy: list[Row] = []
        shared: Row = {}
        for side, name, data in self._members:
            columns = append(side, name, data)
            if side == "json":
                shared |= columns
            elif side == "clean":
                shared |= {"clean_member": name, **columns}
            else:
                rainy.append({"rain_member": name, **columns})
        return [
            {**_EMPTY, **note, "labels": _dump(note["labels"]), **rain} | shared
            for note, rain in zip(self._metadata, rainy, strict=True)
        ]

    def _append(self, side: str, name: str, image: ImageFile) -> None:
        self._members.append((side, f"{self._key}.{name}{image.ending}", image.data))


class SampleReader:
    """Reads the samples of pairs from their source, and keeps what it left out and remarked."""

    def __init__(self, source: Path, reading: Reading) -> None:
        self._source, self._reading = source, reading
        self.quarantined: list[Quarantined] = []
        self.remarks: Remarks = {}

    def read(self, pairs: Iterable[Pair]) -> Iterator[Sample]:
        """The samples that have a usable pair, one at a time.

        Neighbouring pairs of one scene are one sample.
        """
        for together in group_samples(pairs):
            sample = Sample(together[0])
            for pair in together:
                self._add(sample, pair)
            if len(sample):
                sample.end()
                yield sample

    def _add(self, sample: Sample, pair: Pair) -> None:
        try:
            images = read_pair(pair, self._source, self._reading, clean=sample.clean)
            sample.add(images)
        except DataError as error:
            self.quarantined.append(Quarantined(pair.rain, str(error)))
            return
        if images.remarks:
            own = dict.fromkeys(images.remarks, (1, pair.rain))
            self.remarks = joined((self.remarks, own))


def json_length(pairs: Sequence[Pair]) -> int:
    """The largest possible size in bytes of the JSON member of a sample of these pairs."""
    first = pairs[0]
    notes = [_metadata(pair, (_WIDEST, _WIDEST)) for pair in pairs]
    fields = [f"{rain_field(number, True)}.jpeg" for number in range(1, len(pairs) + 1)]
    return len(_json(first.sample, notes, fields if first.scene is not None else None))


def json_member(rain_member: str) -> str:
    """The name of the JSON member in the sample of a rainy image."""
    return f"{rain_member.partition('.')[0]}.json"


def rain_field(number: int, is_scene: bool) -> str:
    """The name of a rainy image within its sample; in a scene they are numbered from 1."""
    return f"rain-{number:02d}" if is_scene else "rain"


def _metadata(pair: Pair, size: tuple[int, int]) -> Row:
    """The part of an index row that does not depend on the tar; `size` is width and height."""
    width, height = size
    return {
        "key": pair.key,
        "rain_source": pair.rain,
        "clean_source": pair.clean,
        "width": width,
        "height": height,
        "labels": dict(pair.labels),
    }


def _json(key: str, notes: Sequence[Mapping[str, Any]], fields: Sequence[str] | None) -> bytes:
    """The content of the JSON member.

    For a scene, with the `fields` of its rainy images: first what all its pairs have in common.
    """
    first = notes[0]
    if fields is None:
        return _dump(first).encode()
    own = ("key", "rain_source", "labels")
    pairs = [
        {"member": field, **{name: note[name] for name in own}}
        for note, field in zip(notes, fields, strict=True)
    ]
    common = {name: value for name, value in first.items() if name not in own}
    return _dump({"key": key, **common, "pairs": pairs}).encode()
