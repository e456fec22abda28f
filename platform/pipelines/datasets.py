"""What is known of the published datasets, and which of them lie in a folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from derain.data.sources import discover
from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.layouts import Dataset, drawing
from derain.errors import DataError
from derain.storage import files


@dataclass(frozen=True)
class Known:
    """A row of `derainctl datasets`."""

    name: str
    title: str
    about: str
    splits: dict[str, list[int]]
    """Pairs as published: every figure that is in use."""
    where: str
    terms: str
    layout: str
    """Drawn, several lines."""
    found: dict[str, dict[str, int]]
    """Of each folder below the root that holds it: pairs by split."""


def datasets(root: str | Path | None = None, names: list[str] | None = None) -> list[Known]:
    """The catalogue, or some rows of it; with a root, what is found there.

    A dataset is looked for in the root and in its sub-folders that are called as it usually is.
    Raises DataError for an unknown name or a root that is not there.
    """
    unknown = [name for name in names or () if name not in CATALOGUE]
    if unknown:
        raise DataError(f"{unknown[0]}: no such dataset. Known: {', '.join(CATALOGUE)}.")
    folder = None if root is None else files.located(root)
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    rows = [CATALOGUE[name] for name in names or CATALOGUE]
    return [_known(row, folder) for row in rows]


def _known(row: Dataset, root: Path | None) -> Known:
    return Known(
        name=row.name,
        title=row.title,
        about=row.about,
        splits={split: list(counts) for split, counts in row.splits.items()},
        where=row.where,
        terms=row.terms,
        layout=drawing(row),
        found={} if root is None or row.any_split else _found(row, root),
    )


def _found(row: Dataset, root: Path) -> dict[str, dict[str, int]]:
    usual = {_plain(name) for name in (row.name, row.title, *row.folders)}
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    there = {
        str(folder): discover.counts(row, folder)
        for folder in folders
        if _plain(folder.resolve().name) in usual
    }
    return {folder: counts for folder, counts in there.items() if counts}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
