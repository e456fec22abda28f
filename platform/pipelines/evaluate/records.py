"""What is known of one scored image, and the same as rows of a Parquet table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from derain.evaluation.scoring import ImageScores

INPUT = "input"
_FIXED = {
    "number": pa.int64(),
    "key": pa.string(),
    "seconds": pa.float64(),
    "downstream": pa.string(),
    "reason": pa.string(),
}


@dataclass(frozen=True)
class Record:
    """One image of a dataset: its metrics, or why it has none."""

    number: int
    """Of the image in its dataset, from 0."""
    key: str
    seconds: float | None = None
    """What deraining it took."""
    values: Mapping[str, float] = field(default_factory=dict)
    """`PROTOCOL.METRIC` of the derained image, `PROTOCOL.input.METRIC` of the rainy one."""
    downstream: str | None = None
    """What a detector or segmenter found, as JSON: see `derain.evaluation.downstream`."""
    reason: str | None = None
    """Why it could not be scored; None if it was."""


def values_of(scores: Mapping[str, ImageScores]) -> dict[str, float]:
    """The metrics under several protocols as `Record.values`."""
    return {
        column: value
        for protocol, image in scores.items()
        for prefix, metrics in (
            (protocol, image.metrics),
            (f"{protocol}.{INPUT}", image.input),
        )
        for column, value in ((f"{prefix}.{name}", value) for name, value in metrics.items())
    }


def scores_of(record: Record, protocol: str) -> ImageScores:
    """The metrics of an image under one protocol, the inverse of `values_of`."""
    metrics: dict[str, float] = {}
    given: dict[str, float] = {}
    for column, value in record.values.items():
        prefix, _, name = column.rpartition(".")
        if prefix == protocol:
            metrics[name] = value
        elif prefix == f"{protocol}.{INPUT}":
            given[name] = value
    return ImageScores(record.key, metrics, given)


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `row_of` as a table; a column that a row lacks is null in it."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    schema = pa.schema([(name, _FIXED.get(name) or _kind(name)) for name in columns])
    return pa.Table.from_pylist(list(rows), schema=schema)


def row_of(record: Record, **more: str) -> dict[str, Any]:
    """A record as a row; `more` are columns in front."""
    return {
        **more,
        "number": record.number,
        "key": record.key,
        "seconds": record.seconds,
        **record.values,
        "downstream": record.downstream,
        "reason": record.reason,
    }


def records_in(rows: pa.Table) -> Iterable[Record]:
    """The records of a table without further columns."""
    for row in rows.to_pylist():
        fixed = {name: row.pop(name) for name in _FIXED}
        yield Record(values={name: it for name, it in row.items() if it is not None}, **fixed)


def _kind(column: str) -> pa.DataType:
    """Metrics have a dot in their names, further columns have none."""
    return pa.float64() if "." in column else pa.string()
