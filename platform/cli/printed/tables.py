"""Tables without lines, and those of which a terminal has the columns that fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from textwrap import wrap

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column, Table

GAP = 2
"""Spaces between two columns."""


def new_table(*columns: str | Column) -> Table:
    """A table without lines, its columns `GAP` apart; under a text, long words continue on a new
    line."""
    made = (Column(c, overflow="fold") if isinstance(c, str) else c for c in columns)
    return Table(*made, box=None, pad_edge=False, padding=(0, GAP, 0, 0))


@dataclass(frozen=True)
class Fitted:
    """A table of which a terminal has the first columns, as many as fit, and names the others."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    elsewhere: str
    """Where the other columns are."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width + GAP
        widths = self._widths(len)
        if sum(widths) > room:
            widths = self._widths(_head_width)
        fit = max(sum(end <= room for end in accumulate(widths)), 1)
        table = new_table(*self.heads[:fit])
        for column, wide in zip(table.columns, widths, strict=False):
            column.width = wide - GAP
        for row in self.rows:
            table.add_row(*row[:fit])
        yield table
        if others := self.heads[fit:]:
            yield f"({self.elsewhere}: {', '.join(others)})"

    def _widths(self, of_head: Callable[[str], int]) -> list[int]:
        """Of each column, with the gap behind it."""
        columns = zip(self.heads, *self.rows, strict=True)
        return [max(of_head(head), *map(len, cells)) + GAP for head, *cells in columns]


def aligned(markdown: str) -> RenderableType:
    """Markdown of a report for a terminal: its tables with aligned columns that fit."""
    parts: list[RenderableType] = []
    for is_table, lines in groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        if is_table:
            heads, _, *rows = ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)
            parts.append(Fitted(heads, rows, "in the report"))
        else:
            parts.append("\n".join(lines))
    return Group(*parts)


def _head_width(head: str) -> int:
    """The least width at which a head takes two lines, broken between words."""
    longest = max(map(len, head.split()), default=0)
    return next(wide for wide in range(longest, len(head) + 1) if len(wrap(head, wide or 1)) <= 2)
