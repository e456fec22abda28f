"""A pair: its source files, its key, and the sample of a tar that it belongs to."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from derain.data.sources.layouts import Half
from derain.errors import DataError

NAMELESS = "picture"
"""The key for a file name without letters and digits; part of prepared datasets on disk."""

MAX_KEY = 76
"""Longer keys would not fit into the 100 characters of a file name in a tar header."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A rainy image and its clean one; names are relative to the source, with slashes."""

    key: str
    """Unique in the dataset, without dots: a dot would end the key for WebDataset readers."""
    rain: str
    clean: str | None
    """None without a clean image."""
    labels: Mapping[str, str] = field(default_factory=dict)
    clean_half: Half | None = None
    """Set if `rain` and `clean` are one file with both images side by side."""
    scene: str | None = None
    """Set if clean images are stored once: the common key of all pairs of one clean image."""

    @property
    def sample(self) -> str:
        """The key of the WebDataset sample that contains this pair."""
        return self.scene or self.key

    @property
    def files(self) -> tuple[str, ...]:
        """Its source files, each once."""
        return (self.rain,) if self.clean in (None, self.rain) else (self.rain, self.clean or "")


def group_samples(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The pairs of each WebDataset sample; they must be neighbours."""
    for _, together in groupby(pairs, lambda pair: pair.sample):
        yield list(together)


def group_by_scene(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs, with all pairs of a clean image as one sample that is named after it.

    Raises DataError for a pair whose clean image is missing or half of the rainy file.
    """
    alone = next((pair for pair in pairs if pair.clean in (None, pair.rain)), None)
    if alone is not None:
        raise DataError(
            f"{alone.rain}: --clean-once needs clean images in files of their own, and this image "
            "has none. Prepare the dataset without --clean-once."
        )
    names = list(dict.fromkeys(pair.clean or "" for pair in pairs))
    folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    stems = (os.path.splitext(name)[0] for name in names)  # noqa: PTH122
    keys = unique_keys(stem[len(folder) :].lstrip("/") for stem in stems)
    scenes = dict(zip(names, keys, strict=True))
    return [replace(pair, scene=scenes[pair.clean or ""]) for pair in pairs]


def unique_keys(names: Iterable[str]) -> list[str]:
    """Unique keys of letters, digits, `-` and `_`, one per name; equal ones get a number."""
    taken: dict[str, int] = {}
    keys = []
    for name in names:
        key = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_KEY] or NAMELESS
        while key in taken:
            taken[key] += 1
            key = f"{key}-{taken[key]}"
        taken[key] = 1
        keys.append(key)
    return keys
