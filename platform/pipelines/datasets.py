"""`datasets`: the catalogue of published datasets, and which of them are in a folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from derain.data.sources import discover
from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.layouts import Dataset, drawing
from derain.errors import DataError
from derain.storage import files


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


def datasets(root: str | Path | None = None, names: list[str] | None = None) -> list[DatasetRow]:
    """The catalogue, or the rows of it in `names`; with a root also what is found there.

    A dataset is searched for in the root and its subfolders, if their name is a usual one for it.
    Raises DataError for an unknown name or a root that does not exist.
    """
    unknown = [name for name in names or () if name not in CATALOGUE]
    if unknown:
        raise DataError(f"{unknown[0]}: no such dataset. Known: {', '.join(CATALOGUE)}.")
    folder = None if root is None else files.locate(root)
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    rows = [CATALOGUE[name] for name in names or CATALOGUE]
    return [_describe(row, folder) for row in rows]


def _describe(row: Dataset, root: Path | None) -> DatasetRow:
    return DatasetRow(
        name=row.name,
        title=row.title,
        about=row.about,
        splits={split: list(counts) for split, counts in row.splits.items()},
        where=row.where,
        terms=row.terms,
        layout=drawing(row),
        found={} if root is None or row.any_split else _find(row, root),
    )


def _find(row: Dataset, root: Path) -> dict[str, dict[str, int]]:
    usual = {_normalise(name) for name in (row.name, row.title, *row.folders)}
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    counts = {
        str(folder): discover.count_pairs(row, folder)
        for folder in folders
        if _normalise(folder.resolve().name) in usual
    }
    return {folder: splits for folder, splits in counts.items() if splits}


def _normalise(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
