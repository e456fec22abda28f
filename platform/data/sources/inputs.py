"""The images that a user names for a command that reads image files: files and whole folders."""

import glob
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from derain.data.images.left_out import LeftOut
from derain.data.sources.entries import find_entries
from derain.data.sources.names import printable
from derain.errors import DataError


@dataclass(frozen=True, slots=True)
class InputImage:
    """A regular file that is an image by its name, or that the user named."""

    path: Path
    name: str
    """Its name below the folder that the user named, with slashes; the file name of a file."""
    folder: str
    """The name of that folder; empty for a file."""


@dataclass
class Inputs:
    """What was found at the paths that a user named."""

    images: list[InputImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    """Entries of folders that are called like images but are none: pipes, sockets, devices."""
    notes: list[str] = field(default_factory=list)
    """Other entries of folders that may be images and were not used, counted."""


def find_inputs(paths: Iterable[Path], *, below: bool = True) -> Inputs:
    """The images at these paths, in the order of the paths and then by name.

    Folders are searched with all folders below them, without `below` only themselves. A path that
    does not exist may be a pattern, such as `photos/*.jpg` or `photos/**/*.jpg`. Raises DataError
    for a path that does not exist, or that is neither a regular file nor a folder, and if there is
    no image at all.
    """
    paths = [match for path in paths for match in _matches(path)]
    found = Inputs()
    for path in paths:
        if path.is_dir():
            _add_folder(found, path, below)
        elif _is_regular(path):
            found.images.append(InputImage(path, path.name, ""))
        else:
            what = "neither an image file nor a folder" if path.exists() else "no such file"
            raise DataError(f"{path}: {what}. Expected images, or folders of images.")
    if not found.images:
        raise DataError(_none_found(paths, found))
    return found


def _matches(path: Path) -> list[Path]:
    """The paths of a pattern in the order of their names; the path itself if it is none."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    anchor = Path(path.anchor)
    return sorted(anchor.glob(str(path.relative_to(anchor)))) or [path]


def _add_folder(found: Inputs, folder: Path, below: bool) -> None:
    entries = find_entries(folder)
    names = sorted([*entries.images, *entries.not_utf8])
    if not below:
        deeper = [name for name in names if "/" in name]
        names = [name for name in names if "/" not in name]
        if deeper:
            example = printable(deeper[0])
            found.notes.append(
                f"{folder}: images in folders below it, which were not used: {len(deeper):,}, "
                f"such as {example}."
            )
    for name in names:
        path = folder / name
        if _is_regular(path):
            found.images.append(InputImage(path, name, folder.resolve().name))
        else:
            found.left_out.append(LeftOut(str(path), "not a regular file"))
    found.notes += [f"{folder}: {ignored}" for ignored in entries.ignored()]


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _none_found(paths: Sequence[Path], found: Inputs) -> str:
    rest = [*found.notes, *(f"{item.path}: {item.reason}." for item in found.left_out)]
    where = ", ".join(map(str, paths))
    return " ".join([f"{where}: no image (PNG, JPEG, BMP, WebP or TIFF).", *rest])
