"""What a sweep's report says, as Markdown and as one HTML file."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
.note { color: #555; }
"""

Table = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Plot:
    """An image of the report: its file beside the text, and what it shows."""

    file: str
    title: str


@dataclass(frozen=True)
class Page:
    """A report: tables under their headings (a single one needs none), notes, images, space."""

    title: str
    tables: Mapping[str, Table]
    lines: Sequence[str]
    images: Sequence[Plot]
    space: str

    def markdown(self) -> str:
        """The text with links to the images beside it."""
        parts = [f"# {self.title}"]
        for heading, table in self.tables.items():
            rows = ["| " + " | ".join(row) + " |" for row in table]
            rows.insert(1, "| --- |" + " ---: |" * (len(table[0]) - 1))
            parts += [f"## {heading}"] * (len(self.tables) > 1) + ["\n".join(rows)]
        parts.append("\n".join(f"- {line}" for line in self.lines))
        for image in self.images:
            parts += [f"![{image.title}]({image.file})", f"{image.title}."]
        parts += ["## Search space", f"```yaml\n{self.space}\n```"]
        return "\n\n".join(parts) + "\n"

    def html(self, folder: Path) -> str:
        """The page with the images of `folder` inside."""
        title = html.escape(self.title)
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        parts = [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
            f"<style>{_STYLE}</style><h1>{title}</h1>",
        ]
        for heading, table in self.tables.items():
            parts += [f"<h2>{html.escape(heading)}</h2>"] * (len(self.tables) > 1)
            parts.append(f"<table>{_rows(table)}</table>")
        parts.append(f"<ul class='note'>{lines}</ul>")
        parts += [_embedded(folder, image) for image in self.images]
        parts.append(f"<h2>Search space</h2><pre>{html.escape(self.space)}</pre></html>")
        return "\n".join(parts) + "\n"


def _rows(table: Table) -> str:
    head, *body = ("".join(f"<CELL>{html.escape(cell)}</CELL>" for cell in row) for row in table)
    rows = [head.replace("CELL", "th"), *(row.replace("CELL", "td") for row in body)]
    return "".join(f"<tr>{row}</tr>" for row in rows)


def _embedded(folder: Path, image: Plot) -> str:
    data = base64.b64encode((folder / image.file).read_bytes()).decode()
    title = html.escape(image.title)
    return f"<h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{data}'>"
