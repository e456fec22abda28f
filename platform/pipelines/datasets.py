"""`datasets`: the catalogue of published datasets, and which of them are in a folder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.data.sources import discover
from derain.data.sources.catalogue import CATALOGUE, find_dataset, names_of, plain_name
from derain.data.sources.catalogue.own_file import read_rows
from derain.data.sources.layouts import Dataset, drawing
from derain.errors import DataError
from derain.storage import files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetRow:
    """A row of `derainctl datasets`."""

    name: str
    title: str
    about: str
    splits: dict[str, list[int]]
    """Published numbers of pairs: more than one if sources disagree."""
    where: str
    terms: str
    layout: str
    """A drawing of the file layout, several lines."""
    found: dict[str, dict[str, int]]
    """Number of pairs by split, for every folder under the root that holds the dataset."""
    aliases: list[str]
    """Other names that `prepare` takes."""
    unchecked: str
    """What of this row could not be checked against the files as published."""


def datasets(
    root: str | Path | None = None,
    names: list[str] | None = None,
    layouts: Path | None = None,
) -> list[DatasetRow]:
    """The catalogue, or the rows of it in `names`; with a root also what is found there.

    `layouts` is a file with rows of the user's own, which come first. A dataset is searched for in
    the root and its subfolders, if their name is a usual one for it; a folder that cannot be read
    is named in the log. Raises DataError for an unknown name or a root that does not exist,
    ConfigError for a file that is not as expected.
    """
    own = () if layouts is None else read_rows(layouts)
    rows = [find_dataset(name, own) for name in names or ()] or [*own, *CATALOGUE.values()]
    folder = None if root is None else files.locate(root)
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    folders = [] if folder is None else _folders(folder)
    return [_describe(row, folders) for row in rows]


def _describe(row: Dataset, folders: Sequence[Path]) -> DatasetRow:
    return DatasetRow(
        name=row.name,
        title=row.title,
        about=row.about,
        splits={split: list(counts) for split, counts in row.splits.items()},
        where=row.where,
        terms=row.terms,
        layout=drawing(row),
        found={} if row.any_split else _find(row, folders),
        aliases=list(row.aliases),
        unchecked=row.unchecked,
    )


def _folders(root: Path) -> list[Path]:
    """The root and its subfolders. Raises DataError if the root cannot be read."""
    try:
        return [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    except PermissionError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror}).") from None


def _find(row: Dataset, folders: Sequence[Path]) -> dict[str, dict[str, int]]:
    usual = {*names_of(row), *map(plain_name, (row.title, *row.folders))}
    found = {}
    for folder in folders:
        if plain_name(folder.resolve().name) not in usual:
            continue
        try:
            found[str(folder)] = discover.count_pairs(row, folder)
        except DataError as error:
            log.warning("datasets: not counted: %s", error)
    return {folder: splits for folder, splits in found.items() if splits}
