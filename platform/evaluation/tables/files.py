"""All files of the tables of an evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_tables(result: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write the tables of an evaluation into a folder, which is made if missing.

    `result` is what `derainctl evaluate --json` prints: `model` (None without one) with its
    `datasets`, and under `results` the other methods, each with `name`, `folder`, `datasets`
    (items like those of the model), `left_out` and `extra`. Nothing else of it is read.

    Written are, for each published table that has a measured set, tableN.csv and tableN.tex (for
    LaTeX's \\input), the same for all measured datasets as measured.csv and measured.tex, and
    tables.md, tables.html and tables.tex with all of them. Returns the paths, in that order.

    Raises OSError if the folder cannot be written to.
    """
    raise NotImplementedError
