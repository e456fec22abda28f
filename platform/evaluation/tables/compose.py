"""Rows of a result of `evaluate` beside the quoted rows of published tables.

A measured value is ranked with the quoted ones only if nothing that is known tells them apart: the
images, their number, the protocol and the training data. Otherwise it is shown with the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean
from typing import Any

from derain.evaluation.tables.cells import Cell, Column, Row, Table
from derain.evaluation.tables.methods import Item, Method, methods_of, value_of
from derain.evaluation.tables.published_tables import (
    AVERAGE,
    PROTOCOL,
    PSNR,
    SSIM,
    Metric,
    PublishedSet,
    PublishedTable,
    published_tables,
)

INPUT = "rainy input"
RANKED = (
    "Bold: best; underlined: second best, of the values that are comparable with each other. The "
    "marks say what keeps a value out, or what is odd about it."
)


def tables_of(result: Mapping[str, Any]) -> list[Table]:
    """The published tables of which a set was measured, each with measured rows; then `measured`
    and `further_metrics`, which have no quoted ones.

    `result`: see `files.write_tables`.
    """
    methods = methods_of(result)
    published = [
        compared(table, methods)
        for table in published_tables()
        if any(_item(method, each) for method in methods for each in table.sets)
    ]
    own = [table for table in (measured(methods), further_metrics(methods)) if table.rows]
    return [*published, *own]


def compared(table: PublishedTable, methods: Sequence[Method]) -> Table:
    """A published table with rows of the methods below the quoted ones."""
    titles = [*(each.title for each in table.sets), *([AVERAGE] if table.averaged else [])]
    columns = tuple(Column(title, metric) for title in titles for metric in table.metrics)
    rows = [_quoted(table, method, columns) for method in table.rows]
    for protocol in [] if table.quoted_only else _protocols(methods):
        rows += _measured_rows(table, methods, protocol)
    notes = (RANKED, *table.notes, *_stated(methods, rows))
    return Table(table.name, table.title, columns, tuple(rows), notes)


def _quoted(table: PublishedTable, method: str, columns: Sequence[Column]) -> Row:
    cells = []
    for column, printed in zip(columns, table.rows[method], strict=True):
        remark = table.remarks.get((method, column.title))
        cells.append(Cell(float(printed), (remark,) if remark else ()))
    return Row(method, "quoted", "", tuple(cells), group="" if method == INPUT else "published")


def _stated(methods: Sequence[Method], rows: Sequence[Row]) -> list[str]:
    """The note on methods with rows whose training data was stated; none without such methods."""
    shown = {row.method for row in rows if row.origin == "measured"}
    names = [it.name for it in methods if it.states_training and it.name in shown]
    return [f"What was stated, not recorded: the training data of {', '.join(names)}."] * bool(
        names
    )


def _measured_rows(table: PublishedTable, methods: Sequence[Method], protocol: str) -> list[Row]:
    """The rainy input and the methods of which any set was measured under a protocol."""
    measured_by = [
        method
        for method in methods
        for items in [filter(None, (_item(method, each) for each in table.sets))]
        if any(protocol in item["by_protocol"] for item in items)
    ]
    if not measured_by:
        return []
    rows = [_row(table, method, protocol) for method in measured_by]
    return [_input_row(table, measured_by, protocol), *rows]


def _row(table: PublishedTable, method: Method, protocol: str) -> Row:
    """The row of a method under one protocol."""
    reasons = [*method.remarks, *filter(None, [method.training_reason()])]
    if protocol != PROTOCOL:
        reasons.insert(0, f"measured under {protocol}; the quoted values fit {PROTOCOL}")
    cells = _cells(table, [_item(method, each) for each in table.sets], protocol, "metrics")
    return Row(method.name, "measured", method.identity(protocol), cells, tuple(reasons))


def _input_row(table: PublishedTable, methods: Sequence[Method], protocol: str) -> Row:
    """The row of the rainy images themselves, which is not ranked."""
    items = [next(filter(None, (_item(it, each) for it in methods)), None) for each in table.sets]
    cells = _cells(table, items, protocol, "input")
    return Row(INPUT, "measured", methods[0].identity(protocol), cells, group="")


def _cells(
    table: PublishedTable, items: Sequence[Item | None], protocol: str, side: str
) -> tuple[Cell, ...]:
    """The cells of all sets, and of their average."""
    cells = [
        cell
        for each, item in zip(table.sets, items, strict=True)
        for cell in _cells_of_set(each, item, protocol, side, table.metrics)
    ]
    if table.averaged:
        count = len(table.metrics)
        cells += [_average(cells[at::count]) for at in range(count)]
    return tuple(cells)


def _cells_of_set(
    each: PublishedSet, item: Item | None, protocol: str, side: str, metrics: Sequence[Metric]
) -> list[Cell]:
    if item is None or protocol not in item["by_protocol"]:
        return [Cell(None, ("not measured",)) for _ in metrics]
    reasons = tuple(_reasons(each, item))
    values = item["by_protocol"][protocol][side]
    return [Cell(value_of(values, metric), reasons, ranked=not reasons) for metric in metrics]


def _reasons(each: PublishedSet, item: Item) -> Iterable[str]:
    """Why the values of a dataset are not comparable with those of a published set."""
    if each.remark:
        yield each.remark
    if (item["dataset"], item["split"]) not in each.same:
        yield f"images of {item['dataset']}/{item['split']}, not of Rain13K's {each.title}"
    left_out = len(item.get("left_out", ()))
    count = item["pictures"] + left_out
    if left_out:
        yield f"{left_out} of {count} images of {each.title} were left out"
    if each.images and count not in each.images:
        expected = " or ".join(f"{number:,}" for number in each.images)
        yield f"{count:,} images of {each.title}; published: {expected}"


def _average(cells: Sequence[Cell]) -> Cell:
    """The unweighted mean over the sets; empty if one is missing."""
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < len(cells):
        return Cell(None, (f"the mean needs all {len(cells)} sets",))
    if any(cell.reasons for cell in cells):
        return Cell(fmean(values), ("a mean with marked values",), ranked=False)
    return Cell(fmean(values))


def measured(methods: Sequence[Method]) -> Table:
    """All measured datasets, whether or not anything is published about them.

    Methods are ranked under each protocol: they were measured on the same images. Whether they
    were trained on the same data is not looked at.
    """
    protocols = set(_protocols(methods))
    names = _datasets(methods, protocols)
    columns = tuple(Column(name, metric) for name in names for metric in (PSNR, SSIM))
    rows = []
    for protocol in _protocols(methods):
        own = [method for method in methods if protocol in method.protocols]
        by_name = [{item["name"]: item for item in method.datasets} for method in own]
        first = {name: item for found in reversed(by_name) for name, item in found.items()}
        shown = own[0].identity(protocol)
        rows.append(_measured_row(INPUT, names, first, protocol, shown))
        rows += [
            _measured_row(method.name, names, found, protocol, shown)
            for method, found in zip(own, by_name, strict=True)
        ]
    notes = (
        RANKED,
        "Methods are ranked whatever they were trained on.",
        _counts(names, methods),
        *_unnamed(methods),
    )
    return Table("measured", "Measured here", columns, tuple(rows), notes)


def _unnamed(methods: Sequence[Method]) -> list[str]:
    """Why datasets that were prepared as folders of pairs are in no published table."""
    items = (item for method in methods for item in method.datasets)
    names = dict.fromkeys(item["name"] for item in items if item["dataset"] == "paired")
    if not names:
        return []
    return [
        f"In no published table: {', '.join(names)}, prepared as plain pairs. A published set is "
        "prepared under its own name: derainctl prepare rain100l SOURCE OUT --split test"
    ]


def further_metrics(methods: Sequence[Method]) -> Table:
    """NIQE, BRISQUE and LPIPS of all datasets that were measured by them; smaller is better."""
    measured_by = list(dict.fromkeys(name for method in methods for name in method.further_metrics))
    names = _datasets(methods, set(measured_by))
    columns = tuple(
        Column(dataset, Metric(name, name, 3, larger_is_better=False))
        for dataset in names
        for name in measured_by
    )
    by_name = [{item["name"]: item for item in method.datasets} for method in methods]
    first = {name: item for found in reversed(by_name) for name, item in found.items()}
    rows = [Row(INPUT, "measured", "", _values(columns, first, "input"), group="")]
    rows += [
        Row(method.name, "measured", "", _values(columns, items, "metrics"), group="measured")
        for method, items in zip(methods, by_name, strict=True)
        if method.further_metrics
    ]
    used = {name: method for method in reversed(methods) for name in method.further_metrics}
    notes = [RANKED, "Smaller is better.", _counts(names, methods)]
    notes += [f"{name}: {used[name].identity(name)}." for name in measured_by]
    title = "Measured here by further metrics"
    return Table("further_metrics", title, columns, tuple(rows) if names else (), tuple(notes))


def _values(columns: Sequence[Column], items: Mapping[str, Item], side: str) -> tuple[Cell, ...]:
    """The values of further metrics, by dataset and name."""
    cells = []
    for column in columns:
        item, name = items.get(column.group), column.metric.title
        if item is None or name not in item["by_protocol"]:
            cells.append(Cell(None, ("not measured",)))
            continue
        reasons = tuple(_reasons(PublishedSet(column.group, _place(item)), item))
        cells.append(Cell(item["by_protocol"][name][side][name], reasons, ranked=not reasons))
    return tuple(cells)


def _place(item: Item) -> tuple[tuple[str, str], ...]:
    return ((item["dataset"], item["split"]),)


def _datasets(methods: Sequence[Method], measured_by: set[str]) -> list[str]:
    """The names of the datasets that any method was measured on by any of these."""
    return list(
        dict.fromkeys(
            item["name"]
            for method in methods
            for item in method.datasets
            if measured_by & item["by_protocol"].keys()
        )
    )


def _measured_row(
    method: str, names: Sequence[str], items: Mapping[str, Item], protocol: str, shown: str
) -> Row:
    side = "input" if method == INPUT else "metrics"
    cells = []
    for name in names:
        own = PublishedSet(name, same=())
        item = items.get(name)
        if item is not None:
            own = replace(own, same=_place(item))
        cells += _cells_of_set(own, item, protocol, side, (PSNR, SSIM))
    group = "" if method == INPUT else protocol
    return Row(method, "measured", shown, tuple(cells), group=group)


def _counts(names: Sequence[str], methods: Sequence[Method]) -> str:
    """The number of images of each dataset: `Images: 100 of a and b, 20 of c.`"""
    counts = {
        item["name"]: item["pictures"] + len(item.get("left_out", ()))
        for method in methods
        for item in method.datasets
    }
    ordered = sorted(names, key=lambda name: -counts[name])
    parts = [
        f"{count:,} of {' and '.join(together)}"
        for count, together in groupby(ordered, key=lambda name: counts[name])
    ]
    return f"Images: {', '.join(parts)}."


def _item(method: Method, each: PublishedSet) -> Item | None:
    """What was measured of a method on the images of a published set, else on similar ones."""
    for place in (*each.same, *each.similar):
        for item in method.datasets:
            if (item["dataset"], item["split"]) == place:
                return item
    return None


def _protocols(methods: Sequence[Method]) -> list[str]:
    return list(dict.fromkeys(name for method in methods for name in method.protocols))
