"""A published dataset, and the layouts of its folders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from derain.data.sources.patterns import Pattern

Half = Literal["left", "right", "none"]
"""The clean half of a file with two images side by side; with `none` the left one is the rainy
image, and there is no clean one."""


@dataclass(frozen=True)
class Layout:
    """Where the pairs of one split are: rainy and clean names with equal fields form a pair."""

    split: str
    rain: str
    """Pattern of the rainy images, relative to `folder`."""
    clean: tuple[str, ...] = ()
    """Patterns of the clean images, of which the first that fits is used; empty without any."""
    folder: str = ""
    """The folder of this split below the source; the source may also be this folder itself."""
    clean_half: Half | None = None
    """Set if both images are side by side in one file: the half that is clean."""
    listing: str | None = None
    """A text file that lists the pairs, `rainy clean` in each line."""
    only: Mapping[str, range] = field(default_factory=dict)
    """Ranges of numeric fields, for a split that is a part of one folder."""
    labels: tuple[str, ...] = ()
    """Fields that become labels of the image."""
    any_ending: bool = True
    """A file ending in the patterns is a hint: without such a file, one with the ending of any
    image is taken."""

    def __str__(self) -> str:
        """The patterns with their folder, in one line. The manifest stores this text."""
        folder = f"{self.folder}/" if self.folder else ""
        half = f", clean {self.clean_half}" if self.clean_half else ""
        half = ", two copies side by side" if self.clean_half == "none" else half
        return " + ".join(folder + name for name in (self.rain, *self.clean)) + half

    @cached_property
    def rain_pattern(self) -> Pattern:
        """`rain` as a Pattern."""
        return Pattern(self.rain)

    @property
    def clean_patterns(self) -> tuple[Pattern, ...]:
        """`clean` as Patterns."""
        return tuple(Pattern(text) for text in self.clean)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset as its authors published it."""

    name: str
    title: str
    about: str
    splits: Mapping[str, tuple[int, ...]]
    """The number of pairs of each split: every published number, empty if none is known."""
    layouts: tuple[Layout, ...]
    where: str
    """Where it is published."""
    terms: str
    """Its licence."""
    folders: tuple[str, ...] = ()
    """Usual names of its folder, other than `name` and `title`."""
    aliases: tuple[str, ...] = ()
    """Other names of the dataset; case, blanks, hyphens and underscores do not matter."""
    unchecked: str = ""
    """What of this row could not be checked against the files as published."""
    own: Mapping[str, Any] | None = None
    """Set for a row of the user's own: its content, as the manifest records it."""
    plugin: str | None = None
    """`module:Name`, a class of the user's that finds the pairs in place of the layouts."""
    any_split: bool = False
    """The user chooses the name of the split: any folder can be such a dataset."""


def layouts_of(dataset: Dataset, split: str) -> tuple[Layout, ...]:
    """The layouts in which a split is published."""
    if dataset.any_split:
        return dataset.layouts
    return tuple(row for row in dataset.layouts if row.split == split)


def has_clean(dataset: Dataset, split: str) -> bool:
    """True if every layout of a split has clean images, in files of their own or as halves."""
    return all(it.clean or it.clean_half in ("left", "right") for it in layouts_of(dataset, split))


def drawing(dataset: Dataset) -> str:
    """The layouts of a dataset drawn as folder trees; equal trees are drawn once."""
    trees: dict[tuple[str, ...], list[str]] = {}
    for row in dataset.layouts:
        limits = "".join(f", {name} {of.start}-{of.stop - 1}" for name, of in row.only.items())
        folder = f"{row.folder or '.'}/ ({row.split}{limits})"
        trees.setdefault(tuple(_file_lines(row)), []).append(folder)
    return "\n".join("\n".join((", ".join(folders), *files)) for files, folders in trees.items())


def _file_lines(row: Layout) -> list[str]:
    """The files of one layout, one line each."""
    if row.clean_half == "none":
        files = [(row.rain, "rainy | the same once more, side by side")]
    elif row.clean_half:
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
