"""All files of the tables of an evaluation."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from derain.evaluation.tables import latex, page, text
from derain.evaluation.tables.compose import tables_of
from derain.storage.atomic import new_file

TITLE = "Published and measured metrics"


def write_tables(result: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write the tables of an evaluation into a folder, which is made if missing.

    `result` is what `derainctl evaluate --json` prints: `model` (None without one) with its
    `datasets`, and under `results` the other methods, each with `name` and `datasets` (items like
    those of the model). Both may have `trained_on` (see `Method`; None or missing if it is not
    known) and `remarks` (why nothing of it is comparable).

    Written are, for each published table that has a measured set, tableN.csv and tableN.tex (for
    LaTeX's \\input), the same for all measured datasets as measured.csv and measured.tex, for NIQE,
    BRISQUE and LPIPS as further_metrics.csv and further_metrics.tex, and tables.md, tables.html and
    tables.tex with all of them. Files of those names are replaced. Returns the paths, in that
    order.

    Raises OSError if the folder cannot be written to.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in _contents(result):
        path = Path(folder) / name
        with new_file(path, durable=False) as file:
            file.write(content.encode())
        written.append(path)
    return written


def _contents(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name and the content of each file."""
    tables = tables_of(result)
    for table in tables:
        yield f"{table.name}.csv", text.csv_text(table)
        yield f"{table.name}.tex", latex.latex(table)
    sections = "\n".join(text.markdown(table) for table in tables)
    yield "tables.md", f"# {TITLE}\n\n{sections}"
    yield "tables.html", page.page(tables, TITLE)
    yield "tables.tex", latex.document(table.name for table in tables)
