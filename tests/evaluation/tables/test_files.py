"""The files of tables: every format has every value, and any name of a method."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from derain.evaluation.tables import latex
from derain.evaluation.tables.files import write_tables
from tests.evaluation.tables.measured import RAIN13K, five_sets, item, result

ODD = r"50% <b>_x_ & {y} #1 \z ~^ | `q` 雨 é"


class Cells(HTMLParser):
    """The texts of the rows of all tables in a page, and the tags that were opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._inside = tag in ("td", "th", "span", "strong", "u") and bool(self.rows)

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th", "table")

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    others = [
        {"name": ODD, "datasets": [item("rain100l", "test", 37.4)]},
        {"name": "theirs", "datasets": five_sets(), "trained_on": RAIN13K},
    ]
    ours = result(item("rain100h", "test", 29.487), item("own", "x", 20.0), results=others)
    written = write_tables(ours, tmp_path / "new" / "tables")
    assert [path.name for path in written] == [
        "table3.csv", "table3.tex", "measured.csv", "measured.tex",
        "tables.md", "tables.html", "tables.tex",
    ]  # fmt: skip
    assert sorted(written) == sorted((tmp_path / "new" / "tables").iterdir())
    return tmp_path / "new" / "tables"


def test_the_csv_has_quoted_values_as_printed_and_measured_ones_in_full(folder: Path) -> None:
    with (folder / "table3.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["method"], row["origin"]): row for row in csv.DictReader(file)}
    fclip, ours = rows["FCLIP-UNet", "quoted"], rows["net@champion", "measured"]
    assert (fclip["Test100_PSNR"], fclip["Average_SSIM"]) == ("31.23", "0.934")
    assert (ours["Rain100H_PSNR"], ours["Rain100H_SSIM"]) == ("29.487000", "0.294870")
    assert (ours["Test100_PSNR"], ours["protocol"]) == ("", "rain13k v1")
    assert "Rain100H: images of rain100h/test" in ours["notes"]
    assert (ODD, "measured") in rows
    assert float(rows["theirs", "measured"]["Average_PSNR"]) == pytest.approx(33.2)


def test_markdown_has_all_columns_in_all_rows(folder: Path) -> None:
    text = (folder / "tables.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in lines[: lines.index(lines[-1])]}
    assert widths == {3 + 12 + 2, 3 + 2 * 8 + 2}
    (theirs, _) = [line for line in lines if line.startswith("| theirs ")]
    assert theirs.startswith("| theirs | **measured** | rain13k v1 | **31.50** |")
    assert "| FCLIP-UNet | quoted | not stated | <ins>31.23</ins> |" in text
    assert r"\<b\>\_x\_" in text


def test_the_page_needs_nothing_else_and_shows_names_as_they_are(folder: Path) -> None:
    page = (folder / "tables.html").read_text(encoding="utf-8")
    found = Cells(page)
    rows = {row[0].removesuffix("rain13k v1"): row for row in found.rows if row}
    assert rows["FCLIP-UNet"][1:3] == ["31.23", "0.924"]
    assert len(rows["theirs"]) == 1 + 2 * 8
    assert any(row[0].startswith(ODD) for row in found.rows)
    assert not [tag for tag, attributes in found.tags if {"src", "href"} & attributes.keys()]
    assert not {"script", "link", "img"} & {tag for tag, _ in found.tags}
    assert "@import" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    hints = [attributes["title"] for _, attributes in found.tags if "title" in attributes]
    assert "not measured" in hints


def test_latex_has_booktabs_rules_and_no_bare_special_characters(folder: Path) -> None:
    text = (folder / "table3.tex").read_text(encoding="utf-8")
    for rule in ("toprule", "midrule", "bottomrule", "cmidrule"):
        assert f"\\{rule}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    counts = {len(re.findall(r"(?<!\\)&", line)) for line in rows}
    assert counts == {0, 6, 12}  # titles of blocks, sets, values
    assert r"\textbf{31.50}" in text
    assert r"\underline{31.23}" in text
    document = (folder / "tables.tex").read_text(encoding="utf-8")
    assert r"\input{table3}" in document
    assert latex.escaped(ODD) == (
        r"50\% \textless{}b\textgreater{}\_x\_ \& \{y\} \#1 \textbackslash{}z "
        r"\textasciitilde{}\textasciicircum{} \textbar{} \textasciigrave{}q\textasciigrave{} "
        "U+96E8 é"
    )


def test_files_of_an_earlier_evaluation_are_replaced(folder: Path) -> None:
    before = (folder / "tables.md").read_text(encoding="utf-8")
    write_tables(result(item("own", "x", 21.0)), folder)
    after = (folder / "tables.md").read_text(encoding="utf-8")
    assert before != after
    assert "21.00" in after


def test_an_empty_result_has_no_tables(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"model": None, "datasets": [], "results": []}
    written = write_tables(empty, tmp_path)
    assert [path.name for path in written] == ["tables.md", "tables.html", "tables.tex"]
