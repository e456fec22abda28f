"""Finds the runs and sweeps below some folders, and the one of a name."""

import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from derain.data.prepared.manifest import MANIFEST
from derain.errors import DerainError, UsageError
from derain.tune.runs.entry import Entry
from derain.tune.runs.run_state import is_run, read_run
from derain.tune.runs.sweep_state import is_sweep, read_sweep

log = logging.getLogger(__name__)

OUTPUT_FOLDER = Path("runs")
"""Where runs are unless a config or --dir says otherwise."""
DEEPEST = 5
"""So many folders below the listed one are searched: names of runs may have slashes."""


def folders(place: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """The folders of all runs and sweeps below a folder, in the order of their names; trials belong
    to their sweep."""
    try:
        if is_sweep(place) or is_run(place):
            yield place
            return
        if depth == 0 or (place / MANIFEST).is_file():
            return
        inside = sorted(place.iterdir())
    except OSError as error:
        log.warning("%s: left out: %s", place, error.strerror)
        return
    for path in inside:
        if path.is_dir() and not path.name.startswith(".") and not path.is_symlink():
            yield from folders(path, depth - 1)


def check_places(places: Sequence[Path]) -> list[Path]:
    """The folders to list: those given, or the default one. Raises UsageError for a missing one."""
    for place in places:
        if not place.is_dir():
            raise UsageError(f"{place}: no such folder. Give --dir the output_dir of your runs.")
    if places:
        return list(places)
    return [OUTPUT_FOLDER] if OUTPUT_FOLDER.is_dir() else []


def list_all(places: Sequence[Path]) -> list[Entry]:
    """All runs and sweeps below some folders: the running ones, then the newest first."""
    entries = [
        read(folder, name_of(folder, place)) for place in places for folder in folders(place)
    ]
    return sorted(entries, key=lambda entry: (entry.state != "running", -entry.updated))


def read(folder: Path, name: str) -> Entry:
    """A run or a sweep; one whose files are damaged is listed as failed, with the reason."""
    try:
        return read_sweep(folder, name)[0] if is_sweep(folder) else read_run(folder, name)
    except (DerainError, OSError) as error:
        updated = folder.stat().st_mtime
        return Entry(
            name=name, kind="sweep" if is_sweep(folder) else "run", folder=folder, state="failed",
            step=0, steps=None, best=None, began=None, updated=updated, age_s=0.0,
            error=str(error),
        )  # fmt: skip


def name_of(folder: Path, place: Path) -> str:
    """The path of a run below the folder that is listed; its own name if that is the run itself."""
    return folder.name if folder == place else folder.relative_to(place).as_posix()


def find(name: str, places: Sequence[Path]) -> tuple[Path, str]:
    """The folder of a run, a sweep or a trial, given by name or path; and its name.

    Raises UsageError, with the nearest names, if there is none.
    """
    for place in places:
        folder = place / name
        if not Path(name).is_absolute() and (is_sweep(folder) or is_run(folder)):
            return folder, name
    folder = Path(name)
    if is_sweep(folder) or is_run(folder):
        above = next((p for p in places if folder.is_relative_to(p) and folder != p), None)
        return folder, folder.name if above is None else name_of(folder, above)
    known = [name_of(found, place) for place in places for found in folders(place)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    where = ", ".join(map(str, places)) or str(OUTPUT_FOLDER)
    raise UsageError(
        f"{name}: no such run or sweep in {where}.{meant} `derainctl runs` lists all; --dir names "
        "another folder."
    )
