"""Clean images that show the same scene: between two datasets, and within one."""

import logging
from dataclasses import dataclass

from derain.data.images.hashes import ImageHash, distances, near_matches
from derain.data.images.left_out import LeftOut
from derain.pipelines.leaks.clean_images import HashedDataset

log = logging.getLogger(__name__)

DISTANCE = 40
"""Bits of 256 in which hashes of one scene may differ: measured in docs/measurements/leaks.md."""

WITHIN = 50_000
"""Maximum number of images for a comparison of all pairs within a dataset; in larger datasets only
exact copies are found."""


@dataclass(frozen=True)
class Match:
    """A clean image of the training set and one of the test set that show the same scene."""

    train: str
    test: str
    distance: int
    """Bits that differ, of 256."""
    exact: bool
    """Equal pixels, apart from a crop of less than 16 pixels at the right and at the bottom."""
    train_clean: str
    train_clean_sha256: str
    """SHA-256 of its bytes in the training set: another image may have the same name."""
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
    """All matches and duplicates, as `--json` prints them."""

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
    left_out: dict[str, list[LeftOut]]
    """Clean images of `train` and of `test` that cannot be read."""


def compare(train: HashedDataset, test: HashedDataset, distance: int = DISTANCE) -> Leaks:
    """Find every match and every duplicate, nearest first."""
    matches = find_matches(train, test, distance)
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
        duplicates={"train": _duplicates(train, distance), "test": _duplicates(test, distance)},
        left_out={"train": train.left_out, "test": test.left_out},
    )


def find_matches(
    train: HashedDataset, test: HashedDataset, distance: int = DISTANCE
) -> list[Match]:
    """Every match between two datasets, nearest first."""
    matches = [
        _match(train, test, left, right, bits)
        for left, right, bits in _same_scene(train, test, distance)
    ]
    return sorted(matches, key=lambda match: (match.distance, match.train, match.test))


def _match(train: HashedDataset, test: HashedDataset, left: int, right: int, bits: int) -> Match:
    train_image, test_image = train.images[left], test.images[right]
    return Match(
        train=train_image.key,
        test=test_image.key,
        distance=bits,
        exact=train.hashes[left].exact == test.hashes[right].exact,
        train_clean=train_image.source,
        train_clean_sha256=train_image.sha256,
        test_clean=test_image.source,
        train_samples=train_image.samples,
    )


def _same_scene(one: HashedDataset, other: HashedDataset, limit: int) -> list[tuple[int, int, int]]:
    """(one, other, bits) of images that look alike or have equal pixels.

    Equal pixels need not look alike: exact digests are of the image cropped to multiples of 16
    pixels, perceptual hashes of the whole image.
    """
    alike = near_matches(one.perceptual, other.perceptual, limit)
    places: dict[str, list[int]] = {}
    for at, item in enumerate(other.hashes):
        places.setdefault(item.exact, []).append(at)
    equal = [(at, to) for at, item in enumerate(one.hashes) for to in places.get(item.exact, ())]
    known = {(left, right) for left, right, _ in alike}
    return alike + [
        (left, right, _differing_bits(one.hashes[left], other.hashes[right]))
        for left, right in equal
        if (left, right) not in known
    ]


def _differing_bits(one: ImageHash, other: ImageHash) -> int:
    return int(distances(one.perceptual[None], other.perceptual[None])[0, 0])


def _duplicates(hashed: HashedDataset, distance: int) -> list[Duplicate]:
    """Images of one dataset that show the same scene, nearest first."""
    if len(hashed.images) > WITHIN:
        log.warning(
            "leaks: %s has %d clean images: only exact copies are searched for within it",
            hashed.prepared.folder, len(hashed.images),
        )  # fmt: skip
        places = _exact_copies(hashed)
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


def _exact_copies(hashed: HashedDataset) -> list[tuple[int, int, int]]:
    """(first, copy, bits) of images whose pixels occurred before."""
    first: dict[str, int] = {}
    hashes = hashed.hashes
    places = [(first.setdefault(it.exact, at), at) for at, it in enumerate(hashes)]
    return [
        (before, at, _differing_bits(hashes[before], hashes[at]))
        for before, at in places
        if before != at
    ]
