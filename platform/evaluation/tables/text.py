"""Tables as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping

from derain.evaluation.tables.cells import BEST, SECOND, Row, Table

STYLES = {BEST: "**{}**", SECOND: "<ins>{}</ins>"}
ORIGINS = {"quoted": "quoted", "measured": "**measured**"}


def markdown(table: Table, level: int = 2) -> str:
    """A section of Markdown: heading, table, notes. `level` is that of the heading."""
    marks, ranks = table.marks(), table.ranks()
    heads = ["method", "origin", "protocol", *(escaped(column.title) for column in table.columns)]
    lines = [f"{'#' * level} {escaped(table.title)}", "", _line(heads)]
    lines.append(_line(["---"] * 3 + ["---:"] * len(table.columns)))
    for number, row in enumerate(table.rows):
        cells = [
            STYLES.get(ranks.get((number, at), 0), "{}").format(table.printed(row, at) or "–")
            + _marked(row.cells[at].reasons, marks)
            for at in range(len(table.columns))
        ]
        named = escaped(row.method) + _marked(row.reasons, marks)
        protocol = "not stated" if row.origin == "quoted" else row.protocol
        lines.append(_line([named, ORIGINS[row.origin], protocol, *cells]))
    notes = [f"- <sup>{mark}</sup> {escaped(reason)}" for reason, mark in marks.items()]
    return "\n".join([*lines, "", *notes, *(f"- {escaped(note)}" for note in table.notes), ""])


def csv_text(table: Table) -> str:
    """One row per method, its values in full, and what the notes say of it in the last column."""
    heads = [
        "method",
        "origin",
        "protocol",
        *(_csv_head(at.title) for at in table.columns),
        "notes",
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for row in table.rows:
        values = [_full(table, row, at) for at in range(len(table.columns))]
        writer.writerow([row.method, row.origin, row.protocol, *values, _csv_notes(table, row)])
    return text.getvalue()


def escaped(text: str) -> str:
    """A text within a line of Markdown, such as a cell of a table."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(reasons: Iterable[str], marks: Mapping[str, str]) -> str:
    joined = ",".join(marks[reason] for reason in reasons)
    return f"<sup>{joined}</sup>" if joined else ""


def _csv_head(title: str) -> str:
    """`Test100 PSNR` as the columns of the published tables are called: `Test100_PSNR`."""
    return "_".join(title.rsplit(" ", 1))


def _full(table: Table, row: Row, column: int) -> str:
    """A quoted value as it is printed, a measured one with six digits after the point."""
    value = row.cells[column].value
    if value is None:
        return ""
    return table.printed(row, column) if row.origin == "quoted" else f"{value:.6f}"


def _csv_notes(table: Table, row: Row) -> str:
    notes = list(row.reasons)
    for column, cell in zip(table.columns, row.cells, strict=True):
        notes += [f"{column.group}: {reason}" for reason in cell.reasons]
    return "; ".join(dict.fromkeys(notes))
