"""Renders a sweep's report as Markdown and as one HTML file."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .9rem; }
td, th { padding: .3rem .7rem; border-bottom: 1px solid #8888; text-align: right; }
td { white-space: nowrap; }
th { vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; background: #fff; }
.note { opacity: .8; overflow-wrap: anywhere; }
"""

Table = Sequence[Sequence[str]]
"""Rows of cells, header first."""


@dataclass(frozen=True)
class Plot:
    """An image of the report: its file, in the folder of the report, and its caption."""

    file: str
    title: str
    page: str | None = None
    """A page in the folder of the report that shows more."""


@dataclass(frozen=True)
class Page:
    """The content of a report; a single table gets no heading."""

    title: str
    tables: Mapping[str, Table]
    """By heading."""
    lines: Sequence[str]
    """Notes below the tables."""
    images: Sequence[Plot]
    space: str
    """The search space as YAML."""

    def markdown(self) -> str:
        """The page as Markdown, with links to the images."""
        parts = [f"# {self.title}"]
        for heading, table in self.tables.items():
            if len(self.tables) > 1:
                parts.append(f"## {heading}")
            rows = ["| " + " | ".join(row) + " |" for row in table]
            rows.insert(1, "| --- |" + " ---: |" * (len(table[0]) - 1))
            parts.append("\n".join(rows))
        parts.append("\n".join(f"- {line}" for line in self.lines))
        for image in self.images:
            parts += [f"![{image.title}]({image.file})", f"{image.title}."]
            if image.page:
                parts[-1] += f" [Compare them]({image.page})."
        parts += ["## Search space", f"```yaml\n{self.space}\n```"]
        return "\n\n".join(parts) + "\n"

    def html(self, folder: Path) -> str:
        """The page as HTML, with the images of `folder` embedded."""
        title = html.escape(self.title)
        parts = [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<style>{_STYLE}</style><h1>{title}</h1>",
        ]
        for heading, table in self.tables.items():
            if len(self.tables) > 1:
                parts.append(f"<h2>{html.escape(heading)}</h2>")
            parts.append(f"<table>{_rows(table)}</table>")
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        parts.append(f"<ul class='note'>{lines}</ul>")
        parts += [_embed(folder, image) for image in self.images]
        parts.append(f"<h2>Search space</h2><pre>{html.escape(self.space)}</pre></html>")
        return "\n".join(parts) + "\n"


def _rows(table: Table) -> str:
    tags = ["th", *["td"] * (len(table) - 1)]
    return "".join(f"<tr>{_cells(row, tag)}</tr>" for row, tag in zip(table, tags, strict=True))


def _cells(row: Sequence[str], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)


def _embed(folder: Path, image: Plot) -> str:
    data = base64.b64encode((folder / image.file).read_bytes()).decode()
    title = html.escape(image.title)
    link = f"<p><a href='{html.escape(image.page)}'>Compare them</a></p>" if image.page else ""
    return f"<h2>{title}</h2>{link}<img alt='{title}' src='data:image/png;base64,{data}'>"
