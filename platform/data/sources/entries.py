"""Everything that is in a source: images, images that are not read, and what is none.

Nothing that the walk sees is dropped without being counted: an entry is used in a pair, quarantined
with its reason, or listed as ignored.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from derain.data.images.kinds import HEAD_BYTES, is_image, is_unread_kind, kind_of
from derain.data.sources.names import fold, printable
from derain.storage import files

OTHER_FILES = "Other files, which were not used"
"""How the note on files that are no images begins."""

LABELS = "labels.json"
"""A file beside the images, {file name: {label: value}}, whose labels go into the samples."""

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_SYSTEM_FOLDERS = frozenset(
    {
        *("lost+found", "system volume information", "$recycle.bin", "recycler", "recycled"),
        *("__macosx", "@eadir", "#recycle", "#snapshot"),
    }
)
"""Folders that an operating system or a file server puts beside the user's own."""


@dataclass(frozen=True)
class Ignored:
    """Entries of one kind that were left out."""

    what: str
    """Such as `Images of kinds that are not read`, with what to do at its end."""
    names: tuple[str, ...]
    remedy: str = ""

    def __str__(self) -> str:
        """The note in the manifest: other words give a prepared dataset another identity."""
        remedy = f" {self.remedy}" if self.remedy else ""
        example = printable(self.names[0])
        return f"{self.what}: {len(self.names):,}, such as {example}.{remedy}"


@dataclass(frozen=True)
class Entries:
    """What a walk through a source saw; all names are relative to the source, with slashes."""

    images: list[str]
    """Sorted names of all files that are called like images that are read."""
    not_utf8: list[str]
    """Images whose names are not valid UTF-8, with surrogates for the other bytes."""
    unread: list[str]
    """Images, by their names, of kinds that are not read."""
    disguised: list[str]
    """Images, by their first bytes, that are not called like one. Not looked for in a store."""
    hollow: list[str]
    """Empty folders that are called like images."""
    unreadable: Mapping[str, str]
    """Folders that cannot be read, and why."""
    others: list[str]
    """Files that are no images, without hidden files and those of operating systems."""

    def ignored(self) -> Iterator[Ignored]:
        """Entries that no layout can use, though they are or may be images."""
        if self.unread:
            endings = _by_ending(self.unread)
            what = f"Images of kinds that are not read ({endings}), which were left out"
            yield Ignored(what, tuple(self.unread), "Convert them to PNG or JPEG.")
        if self.disguised:
            what = "Images without the ending of one in their names, which were left out"
            yield Ignored(what, tuple(self.disguised), "Rename them.")
        if self.hollow:
            yield Ignored("Empty folders that are called like images", tuple(self.hollow))
        folders = [name for name in self.unreadable if not is_system_folder(name)]
        if folders:
            what = "Folders outside the layout that cannot be read, and were left out"
            yield Ignored(what, tuple(folders))

    def quiet_notes(self, used: Iterable[str]) -> Iterator[str]:
        """Notes on what is certainly no image of the dataset; `used` names files that were read."""
        folders = [name for name in self.unreadable if is_system_folder(name)]
        if folders:
            reason = self.unreadable[folders[0]]
            what = "Folders of the operating system that cannot be read"
            yield f"{what}: {len(folders)}, such as {printable(folders[0])} ({reason})."
        others = sorted({*self.others} - {*used})
        if others:
            yield f"{OTHER_FILES}: {_by_ending(others)}, such as {printable(others[0])}."


def find_entries(source: Path, *, open_files: bool = True) -> Entries:
    """Walk through a source, local or remote, and sort its entries by kind.

    With `open_files` the first bytes of files that are not called like images are read, to see
    whether they are images nevertheless; not in a store.
    Raises DataError if the source itself cannot be read.
    """
    notes = files.WalkNotes()
    kept = [name for name in files.walk(source, notes) if not _is_hidden(name)]
    images, rest = _split(is_image, kept)
    utf8, invalid = _split(lambda name: printable(name) == name, images)
    unread, rest = _split(is_unread_kind, rest)
    visible = sorted(name for name in rest if name.rpartition("/")[2].lower() not in _JUNK)
    opens = open_files and not files.is_remote(source)
    disguised, others = _split(lambda name: opens and _has_image(f"{source}/{name}"), visible)
    return Entries(
        images=sorted(utf8, key=lambda name: (name.casefold(), name)),
        not_utf8=sorted(invalid),
        unread=sorted(unread),
        disguised=disguised,
        hollow=sorted(name for name in notes.empty if is_image(name) or is_unread_kind(name)),
        unreadable=dict(sorted(notes.unreadable.items())),
        others=others,
    )


def has_image(source: Path) -> bool:
    """True if a source holds any file that is called like an image that is read."""
    return any(map(is_image, files.walk(source, files.WalkNotes())))


def is_system_folder(name: str) -> bool:
    """True for a folder that an operating system puts beside the user's own, or a hidden one."""
    parts = [fold(part) for part in name.split("/")]
    return any(part in _SYSTEM_FOLDERS or part.startswith(".") for part in parts)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def _split(test: Callable[[str], bool], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that pass the test, and the others."""
    passed: list[str] = []
    failed: list[str] = []
    for name in names:
        (passed if test(name) else failed).append(name)
    return passed, failed


def _has_image(path: str) -> bool:
    """Whether a regular file begins like an image; a pipe is not opened, it could wait forever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return False
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return kind_of(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _by_ending(names: Iterable[str]) -> str:
    """How many names have each ending, the most frequent first: `3 .heic, 1 .gif`."""
    endings = (os.path.splitext(name)[1].lower() or "without ending" for name in names)  # noqa: PTH122
    counts = sorted(Counter(endings).items(), key=lambda it: (-it[1], it[0]))
    shown = [f"{count:,} {printable(ending)}" for ending, count in counts[:6]]
    return ", ".join([*shown, *(["others"] if len(counts) > 6 else [])])
