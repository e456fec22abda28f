"""The published rain datasets: one table, with the layouts by which their pairs are found.

The file names in it are patterns (see `patterns`). A dataset that was released in several layouts
has one entry for each: the layout with the most pairs is used, the first of equals. All of a
dataset is in one row of `synthetic`, `real` or `own`, and a new one is one more row.

`about` is part of croissant.json, which `verify` compares: other words there fail it for existing
prepared datasets of that row until `prepare` is run on them again.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from derain.data.sources.catalogue.own import OWN
from derain.data.sources.catalogue.own_layout import plugin_row
from derain.data.sources.catalogue.real import REAL
from derain.data.sources.catalogue.synthetic import SYNTHETIC
from derain.data.sources.layouts import Dataset
from derain.errors import DataError
from derain.plugins.resolve import is_plugin

CATALOGUE: Mapping[str, Dataset] = {row.name: row for row in (*SYNTHETIC, *REAL, *OWN)}


def find_dataset(name: str, own: Iterable[Dataset] = ()) -> Dataset:
    """The row of a dataset by its name or another name of it; `own` has rows of the user's.

    `module:Name` is a class of the user's. Raises DataError for an unknown name, with the nearest
    one that is known, ConfigError for a class that cannot be imported.
    """
    if is_plugin(name):
        return plugin_row(name)
    rows = [*own, *CATALOGUE.values()]
    spelled = {key: row for row in reversed(rows) for key in names_of(row)}
    if (row := spelled.get(plain_name(name))) is not None:
        return row
    near = difflib.get_close_matches(plain_name(name), spelled, n=3, cutoff=0.7)
    names = dict.fromkeys(spelled[key].name for key in near)
    hint = f" Did you mean {' or '.join(names)}?" if names else ""
    known = ", ".join(row.name for row in rows)
    raise DataError(f"{name}: no such dataset.{hint} Known: {known}.")


def names_of(row: Dataset) -> list[str]:
    """All names of a dataset, in the spelling of `plain_name`; its own first."""
    return [plain_name(name) for name in (row.name, *row.aliases)]


def plain_name(name: str) -> str:
    """A dataset's name in one spelling: lower-case letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
