"""The leaderboard as a CSV file and as a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from derain.evaluation.tables.page import document
from derain.pipelines.leaderboard.cells import HEADS, cells, heading, leak_text, unchecked
from derain.storage.atomic import write_text
from derain.storage.output_paths import check_file

TITLE = "Registered versions"
NOTE = (
    "Only versions of one table are comparable: they were measured on the same images under the "
    "same protocol. Validation images have chosen the checkpoint, so those metrics are too good; "
    "test images were looked at once. Leaks are clean images of the table's datasets that are "
    "among the training images too. Params counts frozen ones too; MACs are multiply-adds for one "
    "image of 256x256 px."
)
NUMERIC = ("rank", "PSNR", "SSIM", "input PSNR", "params", "MACs", "training")
SINGLE = (
    *("rank", "name", "version", "role", "trained_parameters", "frozen_parameters", "macs"),
    *("train_seconds", "profile"),
)
"""Columns of the CSV that are keys of a row with one value each."""


PLACE = ("protocol", "sha256", "datasets")
"""Columns of the CSV that are those of a row's group."""


def check_files(paths: Sequence[Path | None]) -> None:
    """Raise UsageError or OSError for a file that cannot be written, before any work."""
    for path in paths:
        if path is not None:
            check_file(path)


def write_csv(board: Mapping[str, Any], path: Path) -> None:
    """One line for each entry, with the protocol and the digest of its images."""
    lines = []
    for group in board["groups"]:
        place = {**{key: group[key] for key in PLACE}, "datasets": ";".join(group["datasets"])}
        lines += [{**place, **_flat(row)} for row in group["rows"]]
    heads = list(dict.fromkeys((*PLACE, *SINGLE, *(key for line in lines for key in line))))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    _write(path, text.getvalue())


def write_html(board: Mapping[str, Any], path: Path) -> None:
    """A page with a table for each group, that needs nothing else."""
    body = [f"<p>{escape(NOTE)}</p>", *(_section(group) for group in board["groups"])]
    if board["unmeasured"]:
        names = ", ".join(f"{it['name']}/{it['version']}" for it in board["unmeasured"])
        body.append(f"<p>Without metrics: {escape(names)}.</p>")
    _write(path, document(TITLE, "\n".join(body)))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text, durable=False)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: row[key] for key in SINGLE},
        "aliases": ";".join(row["aliases"]),
        **row["metrics"],
        **{f"input_{name}": value for name, value in row["input"].items()},
        "trained_on": ";".join(row["trained_on"]),
        "train_manifest_sha256": ";".join(row["train_manifest_sha256"]),
        "leaks": leak_text(row["leaks"]),
        "leaks_reason": row["leaks"]["reason"] or "",
    }


def _section(group: Mapping[str, Any]) -> str:
    head = "".join(f"<th{_kind(title)}>{title}</th>" for title in HEADS)
    rows = "\n".join(
        "<tr>"
        + "".join(
            f"<td{_kind(title)}>{escape(text)}</td>"
            for title, text in zip(HEADS, cells(row), strict=True)
        )
        + "</tr>"
        for row in group["rows"]
    )
    notes = "".join(f"<li>{escape(line)}</li>" for line in unchecked(group))
    return (
        f'<h2>{escape(heading(group))}</h2>\n<div class="wide" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n"
        f"<ul>{notes}</ul>"
    )


def _kind(title: str) -> str:
    return "" if title in NUMERIC else ' class="text"'
