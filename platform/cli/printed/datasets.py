"""What `datasets` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from derain.cli.printed.tables import new_table


def dataset_table(
    rows: Sequence[Mapping[str, Any]], *, with_found: bool, on_terminal: bool
) -> RenderableType:
    """The catalogue; on a terminal with one split per line, where rows may have several lines."""
    between = "\n" if on_terminal else ", "
    table = new_table("dataset", "what", "pairs", "licence", *(["found"] if with_found else []))
    for row in rows:
        cells = [row["name"], row["about"], between.join(_pairs_of(row)), row["terms"]]
        if with_found:
            cells.append(between.join(_found_lines(row)) or "-")
        table.add_row(*cells)
    return Group(table, "Layout and source of a dataset: derainctl datasets NAME")


def dataset_entry(row: Mapping[str, Any]) -> str:
    """One dataset as text: a description, then its folders."""
    lines = [f"{row['name']}: {row['title']}. {row['about']}"]
    lines += [f"other names: {', '.join(row['aliases'])}"] if row["aliases"] else []
    lines += [f"pairs: {', '.join(_pairs_of(row))}"]
    lines += [f"not checked: {row['unchecked']}"] if row["unchecked"] else []
    lines += [f"from: {row['where']}", f"licence: {row['terms']}"]
    lines += [f"found: {line}" for line in _found_lines(row)]
    return "\n".join([*lines, *(f"  {line}" for line in row["layout"].splitlines())])


def _pairs_of(row: Mapping[str, Any]) -> list[str]:
    """For each split its published numbers of pairs: more than one if sources disagree."""
    splits = row["splits"].items()
    return [f"{split} {' or '.join(map(str, counts)) or '?'}" for split, counts in splits]


def _found_lines(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{folder}: {', '.join(f'{split} {count}' for split, count in counts.items())}"
        for folder, counts in row["found"].items()
    ]
