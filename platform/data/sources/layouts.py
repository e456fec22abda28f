"""What a published dataset is, and how its folders look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from derain.data.sources.patterns import Pattern

Half = Literal["left", "right"]


@dataclass(frozen=True)
class Layout:
    """Where the pairs of one split lie: rainy and clean names with the same fields are a pair."""

    split: str
    rain: str
    """Pattern of the rainy images, below `folder`."""
    clean: tuple[str, ...] = ()
    """Patterns of the clean ones, the first that fits counts; none: there are no clean images."""
    folder: str = ""
    """Where all this lies below the source; the source may also be this folder itself."""
    clean_half: Half | None = None
    """Both images side by side in one file: the half that is the clean one."""
    listing: str | None = None
    """A text file, `rainy clean` in each line, that says what belongs together."""
    only: Mapping[str, range] = field(default_factory=dict)
    """Numbers that a field may have: a split that is a part of one folder."""
    labels: tuple[str, ...] = ()
    """Fields that are labels of the image."""

    def __str__(self) -> str:
        """What lies where, in one line."""
        folder = f"{self.folder}/" if self.folder else ""
        half = f", clean {self.clean_half}" if self.clean_half else ""
        return " + ".join(folder + name for name in (self.rain, *self.clean)) + half

    @cached_property
    def rain_pattern(self) -> Pattern:
        """Of the rainy images."""
        return Pattern(self.rain)

    @property
    def clean_patterns(self) -> tuple[Pattern, ...]:
        """Of the clean images."""
        return tuple(Pattern(text) for text in self.clean)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset as its authors published it."""

    name: str
    title: str
    about: str
    splits: Mapping[str, tuple[int, ...]]
    """Pairs of each split as published, every figure that is in use; empty where none is known."""
    layouts: tuple[Layout, ...]
    where: str
    terms: str
    folders: tuple[str, ...] = ()
    """Names that its folder usually has, beside its own."""
    any_split: bool = False
    """Folders of anybody's: the split is a word of the user's choice."""


def layouts_of(dataset: Dataset, split: str) -> tuple[Layout, ...]:
    """The rows that a split may lie in."""
    if dataset.any_split:
        return dataset.layouts
    return tuple(row for row in dataset.layouts if row.split == split)


def drawing(dataset: Dataset) -> str:
    """The layouts of a dataset as a small image of its folders; equal ones are drawn once."""
    places: dict[tuple[str, ...], list[str]] = {}
    for row in dataset.layouts:
        limits = "".join(f", {name} {of.start}-{of.stop - 1}" for name, of in row.only.items())
        folder = f"{row.folder or '.'}/ ({row.split}{limits})"
        places.setdefault(tuple(_drawn(row)), []).append(folder)
    return "\n".join("\n".join((", ".join(where), *files)) for files, where in places.items())


def _drawn(row: Layout) -> list[str]:
    """The files of one layout, a line each."""
    if row.clean_half:
        sides = "clean | rainy" if row.clean_half == "left" else "rainy | clean"
        files = [(row.rain, f"{sides}, side by side")]
    else:
        files = [(row.rain, "rainy"), *((clean, "clean") for clean in row.clean)]
    if row.listing:
        files.append((row.listing, "each line: rainy clean"))
    width = max(len(name) for name, _ in files)
    marks = ["├──"] * (len(files) - 1) + ["└──"]
    return [
        f"{mark} {name:<{width}}  {what}" for mark, (name, what) in zip(marks, files, strict=True)
    ]
