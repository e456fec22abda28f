"""Clean images that two prepared datasets share, and those that one holds twice."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from derain.data.images.decode import decode_image
from derain.data.images.hashes import ImageHash, distances, hash_image, near
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError
from derain.storage import files

log = logging.getLogger(__name__)

DISTANCE = 40
"""Bits of 256 that hashes of one scene may differ in: measured in docs/leaks.md."""

WITHIN = 50_000
"""Images up to which a dataset is compared with itself; above, only exact copies are found."""


@dataclass(frozen=True)
class CleanImage:
    """A clean image of a prepared dataset, once however many samples it belongs to."""

    key: str
    """Of its first sample."""
    source: str
    """Its file in the source."""
    samples: int
    shard: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class Match:
    """A clean image of the training set and one of the test set that show the same scene."""

    train: str
    test: str
    distance: int
    """Bits that differ, of 256."""
    exact: bool
    """The very same pixels, up to a crop of less than 16 pixels at the right and at the bottom."""
    train_clean: str
    train_clean_sha256: str
    """Of its bytes in the training set: another image may have the same name."""
    test_clean: str
    train_samples: int


@dataclass(frozen=True)
class Duplicate:
    """Two clean images of one dataset that show the same scene."""

    first: str
    second: str
    distance: int
    exact: bool


@dataclass(frozen=True)
class Leaks:
    """What `leaks` found, as `--json` prints it."""

    train: str
    test: str
    train_manifest_sha256: str
    test_manifest_sha256: str
    distance: int
    matches: list[Match]
    train_pairs: int
    test_pairs: int
    train_pictures: int
    test_pictures: int
    leaked_train_pairs: int
    leaked_test_pictures: int
    duplicates: dict[str, list[Duplicate]]
    """Within `train` and within `test`."""


@dataclass(frozen=True)
class Hashed:
    """The clean images of a prepared dataset and their hashes, in index order."""

    prepared: Prepared
    images: list[CleanImage]
    hashes: list[ImageHash]

    @property
    def perceptual(self) -> np.ndarray:
        """(images, words) uint64."""
        return np.stack([item.perceptual for item in self.hashes])


def leaks(train: str | Path, test: str | Path, *, distance: int = DISTANCE) -> Leaks:
    """Compare the clean images of two prepared datasets with each other and with themselves.

    Raises DataError for a dataset that is not there, has no clean images or is damaged.
    """
    left, right = hash_dataset(open_prepared(train)), hash_dataset(open_prepared(test))
    return compare(left, right, distance)


def hash_dataset(prepared: Prepared) -> Hashed:
    """Hash every clean image once, on all cores."""
    prepared.require_clean()
    found = clean_images(prepared)
    log.info("leaks: hashing %d clean images of %s", len(found), prepared.folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the GIL
        hashes = list(pool.map(lambda image: hash_image(read(prepared, image)), found))
    return Hashed(prepared, found, hashes)


def read(prepared: Prepared, image: CleanImage) -> np.ndarray:
    """The pixels of a clean image: uint8, HWC, RGB. Raises DataError where it is damaged."""
    name = f"{prepared.folder / image.shard}: clean image of {image.key}"
    data = files.read_range(prepared.folder / image.shard, image.offset, image.length)
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise DataError(f"{name}: damaged. Prepare the dataset again.")
    return decode_image(data, name)


def compare(train: Hashed, test: Hashed, distance: int = DISTANCE) -> Leaks:
    """Every match and every duplicate, nearest first."""
    matches = [
        _match(train, test, left, right, bits)
        for left, right, bits in _same_scene(train, test, distance)
    ]
    matches.sort(key=lambda match: (match.distance, match.train, match.test))
    leaked = {match.train: match.train_samples for match in matches}
    return Leaks(
        train=str(train.prepared.folder),
        test=str(test.prepared.folder),
        train_manifest_sha256=train.prepared.manifest.sha256(),
        test_manifest_sha256=test.prepared.manifest.sha256(),
        distance=distance,
        matches=matches,
        train_pairs=len(train.prepared),
        test_pairs=len(test.prepared),
        train_pictures=len(train.images),
        test_pictures=len(test.images),
        leaked_train_pairs=sum(leaked.values()),
        leaked_test_pictures=len({match.test for match in matches}),
        duplicates={"train": _within(train, distance), "test": _within(test, distance)},
    )


def shared_images(path: Path) -> dict[str, str]:
    """sha256 by source file of the training set's clean images that a leaks.json names.

    Raises DataError for a file that is not what `derainctl leaks --json` prints.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {match["train_clean"]: match["train_clean_sha256"] for match in tree["matches"]}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: not what `derainctl leaks --json` prints.") from None


def as_json(found: Leaks) -> str:
    """The document that `--json` prints and the report keeps."""
    return json.dumps(asdict(found), indent=2) + "\n"


def clean_images(prepared: Prepared) -> list[CleanImage]:
    """Every clean image of the index once, in its order."""
    rows: Sequence[dict[str, Any]] = prepared.index.to_pylist()
    samples = Counter(row["clean_source"] for row in rows)
    first: dict[str, CleanImage] = {}
    for row in rows:
        if row["clean_source"] not in first:
            first[row["clean_source"]] = CleanImage(
                key=row["key"],
                source=row["clean_source"],
                samples=samples[row["clean_source"]],
                shard=row["shard"],
                offset=row["clean_offset"],
                length=row["clean_length"],
                sha256=row["clean_sha256"],
            )
    return list(first.values())


def _match(train: Hashed, test: Hashed, left: int, right: int, bits: int) -> Match:
    ours, theirs = train.images[left], test.images[right]
    return Match(
        train=ours.key,
        test=theirs.key,
        distance=bits,
        exact=train.hashes[left].exact == test.hashes[right].exact,
        train_clean=ours.source,
        train_clean_sha256=ours.sha256,
        test_clean=theirs.source,
        train_samples=ours.samples,
    )


def _same_scene(one: Hashed, other: Hashed, limit: int) -> list[tuple[int, int, int]]:
    """(one, other, bits) of images that look alike or have the very same pixels.

    Those of the latter that a crop has moved too far to look alike are up to 15 pixels larger.
    """
    alike = near(one.perceptual, other.perceptual, limit)
    places: dict[str, list[int]] = {}
    for at, item in enumerate(other.hashes):
        places.setdefault(item.exact, []).append(at)
    equal = [(at, to) for at, item in enumerate(one.hashes) for to in places.get(item.exact, ())]
    known = {(left, right) for left, right, _ in alike}
    return alike + [
        (left, right, _bits(one.hashes[left], other.hashes[right]))
        for left, right in equal
        if (left, right) not in known
    ]


def _bits(one: ImageHash, other: ImageHash) -> int:
    return int(distances(one.perceptual[None], other.perceptual[None])[0, 0])


def _within(hashed: Hashed, distance: int) -> list[Duplicate]:
    if len(hashed.images) > WITHIN:
        log.warning(
            "leaks: %s has %d clean images: of its duplicates only exact copies are looked for",
            hashed.prepared.folder, len(hashed.images),
        )  # fmt: skip
        places = _copies(hashed)
    else:
        places = [it for it in _same_scene(hashed, hashed, distance) if it[0] < it[1]]
    duplicates = [
        Duplicate(
            hashed.images[first].key,
            hashed.images[second].key,
            bits,
            hashed.hashes[first].exact == hashed.hashes[second].exact,
        )
        for first, second, bits in places
    ]
    return sorted(duplicates, key=lambda it: (it.distance, it.first, it.second))


def _copies(hashed: Hashed) -> list[tuple[int, int, int]]:
    """Every image whose pixels came before, with the first one."""
    first: dict[str, int] = {}
    hashes = hashed.hashes
    places = [(first.setdefault(it.exact, at), at) for at, it in enumerate(hashes)]
    return [
        (before, at, _bits(hashes[before], hashes[at])) for before, at in places if before != at
    ]
