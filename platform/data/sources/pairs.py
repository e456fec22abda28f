"""A pair: which files it is made of, and under which keys it lies in a tar."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from derain.data.sources.layouts import Half
from derain.errors import DataError

NAMELESS = "picture"
"""The key of a file name without a letter or a digit; prepared datasets have it."""

MAX_KEY = 76
"""Longer names do not fit the 100 characters that a tar header has."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A rainy image and its clean one; names are below the source, with slashes."""

    key: str
    """Unique in the dataset, without dots: a dot would end the key for WebDataset readers."""
    rain: str
    clean: str | None
    """None where there is no clean image."""
    labels: Mapping[str, str] = field(default_factory=dict)
    clean_half: Half | None = None
    """Set where `rain` and `clean` are one file with both images side by side."""
    scene: str | None = None
    """Set where a clean image is stored once: the key of all pairs that have it."""

    @property
    def sample(self) -> str:
        """The key of the WebDataset sample that it lies in."""
        return self.scene or self.key

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the source that it is made of, each once."""
        return (self.rain,) if self.clean in (None, self.rain) else (self.rain, self.clean or "")


def samples(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The pairs of each WebDataset sample, which are neighbours."""
    for _, together in groupby(pairs, lambda pair: pair.sample):
        yield list(together)


def in_scenes(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs, those of one clean image as one sample, named after it.

    Raises DataError where clean images have no files of their own.
    """
    alone = next((pair for pair in pairs if pair.clean in (None, pair.rain)), None)
    if alone is not None:
        raise DataError(
            f"{alone.rain}: has no clean image in a file of its own, which could be stored once "
            "for several rainy ones. Prepare it without --clean-once."
        )
    names = list(dict.fromkeys(pair.clean or "" for pair in pairs))
    folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    stems = (os.path.splitext(name)[0] for name in names)  # noqa: PTH122
    keys = slugs(stem[len(folder) :].lstrip("/") for stem in stems)
    scenes = dict(zip(names, keys, strict=True))
    return [replace(pair, scene=scenes[pair.clean or ""]) for pair in pairs]


def slugs(names: Iterable[str]) -> list[str]:
    """Unique keys made of letters, digits, `-` and `_`; equal slugs get a number."""
    taken: dict[str, int] = {}
    keys = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_KEY] or NAMELESS
        while slug in taken:
            taken[slug] += 1
            slug = f"{slug}-{taken[slug]}"
        taken[slug] = 1
        keys.append(slug)
    return keys
