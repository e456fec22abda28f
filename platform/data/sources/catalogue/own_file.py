"""Rows of the user's own, from the file that `--layouts` names."""

from pathlib import Path

from derain.config.layouts import OwnDataset, OwnLayout, read_own_datasets
from derain.data.sources.catalogue import CATALOGUE, names_of
from derain.data.sources.layouts import Dataset, Layout
from derain.errors import DataError


def read_rows(path: Path) -> tuple[Dataset, ...]:
    """The datasets of a file as rows of the catalogue.

    Raises ConfigError for a key or value that is not as expected, DataError for text that is not a
    pattern, a field that a pattern lacks, and a name that the catalogue or another row has.
    """
    rows = tuple(_row(path, item) for item in read_own_datasets(path))
    taken = {name: row.name for row in CATALOGUE.values() for name in names_of(row)}
    for row in rows:
        for name in dict.fromkeys(names_of(row)):
            if name in taken:
                raise DataError(
                    f"{path}: {row.name}: its name {name} is that of the dataset {taken[name]}. "
                    "Choose another."
                )
            taken[name] = row.name
    return rows


def _row(path: Path, item: OwnDataset) -> Dataset:
    try:
        layouts = tuple(map(_layout, item.layouts))
    except DataError as error:
        raise DataError(f"{path}: {item.name}: {error}") from None
    return Dataset(
        name=item.name,
        title=item.title or item.name,
        about=item.about or "a dataset of one's own",
        splits=item.splits,
        layouts=layouts,
        where=item.where,
        terms=item.terms,
        folders=item.folders,
        aliases=item.aliases,
        own=item.model_dump(mode="json", exclude_defaults=True),
    )


def _layout(item: OwnLayout) -> Layout:
    layout = Layout(
        item.split,
        item.rain,
        item.clean,
        folder=item.folder.strip("/"),
        clean_half=item.clean_half,
        listing=item.listing,
        only={name: range(first, last + 1) for name, (first, last) in item.only.items()},
        labels=item.labels,
    )
    fields = layout.rain_pattern.fields
    for name in (*item.only, *item.labels):
        if name not in fields:
            raise DataError(
                f"{name!r} is no field of the pattern {item.rain!r}. Its fields: "
                f"{', '.join(fields) or 'none'}."
            )
    for name in item.only:
        if f"{{{name}:d}}" not in layout.rain_pattern.text:
            raise DataError(f"`only` needs a field of digits, {{{name}:d}}, in {item.rain!r}.")
    for clean in layout.clean_patterns:
        if not item.listing and not {*clean.fields} & {*fields}:
            raise DataError(
                f"{item.rain!r} and {clean.text!r} have no field in common, by which a pair would "
                "be found."
            )
    return layout
