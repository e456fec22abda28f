"""A table as rows of cells: their values, whether they may be ranked, and why if not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from derain.evaluation.tables.published_tables import Metric

Origin = Literal["quoted", "measured"]
BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Column:
    """The values of one metric on one set."""

    group: str
    """Title of the set."""
    metric: Metric

    @property
    def title(self) -> str:
        """Set and metric in one line."""
        return f"{self.group} {self.metric.title}"


@dataclass(frozen=True)
class Cell:
    """A value, or None with the reason in `reasons`."""

    value: float | None
    reasons: tuple[str, ...] = ()
    """Why it is empty or not comparable with the cells above and below it; or a remark."""
    ranked: bool = True
    """Whether it can be the best of its column."""


@dataclass(frozen=True)
class Row:
    """The values of one method."""

    method: str
    origin: Origin
    protocol: str
    """Under which its values were measured; empty if the source does not state it."""
    cells: tuple[Cell, ...]
    reasons: tuple[str, ...] = ()
    """What holds for all its cells; a row with a reason is not ranked."""
    group: str = "published"
    """Only rows of one group are ranked against each other; those of the group "" never."""


@dataclass(frozen=True)
class Table:
    """A table with what its readers need to know below it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def marks(self) -> dict[str, str]:
        """The mark of each reason, `a`, `b`, ..., in the order in which they occur."""
        reasons = [it for row in self.rows for it in (*row.reasons, *_reasons(row.cells))]
        return {reason: _letters(at) for at, reason in enumerate(dict.fromkeys(reasons))}

    def printed(self, row: Row, column: int) -> str:
        """A value with its metric's digits; empty for an empty cell."""
        value = row.cells[column].value
        return "" if value is None else f"{value:.{self.columns[column].metric.digits}f}"

    def ranks(self) -> dict[tuple[int, int], int]:
        """BEST or SECOND of cells, by the numbers of row and column.

        Values that print alike share a place. A column with a single value has no best one.
        """
        found: dict[tuple[int, int], int] = {}
        for column in range(len(self.columns)):
            for group in {row.group for row in self.rows} - {""}:
                places = list(self._ranked(group, column))
                found |= _two_best(places, self.columns[column].metric, column)
        return found

    def _ranked(self, group: str, column: int) -> Iterator[tuple[int, float]]:
        """The numbers of the rows that are ranked in a column, with their printed values."""
        for number, row in enumerate(self.rows):
            cell = row.cells[column]
            if row.group == group and not row.reasons and cell.ranked and cell.value is not None:
                yield number, float(self.printed(row, column))


def _two_best(
    places: Sequence[tuple[int, float]], metric: Metric, column: int
) -> dict[tuple[int, int], int]:
    if len(places) < 2:
        return {}
    values = sorted({value for _, value in places}, reverse=metric.larger_is_better)
    ranks = dict(zip(values, (BEST, SECOND), strict=False))
    return {(number, column): ranks[value] for number, value in places if value in ranks}


def _reasons(cells: Sequence[Cell]) -> list[str]:
    return [reason for cell in cells for reason in cell.reasons]


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    first = _letters(number // 26 - 1) if number >= 26 else ""
    return first + chr(ord("a") + number % 26)
