"""Measured values by size, the slope between the two largest sizes, and where that leads."""

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Values = Mapping[str, float]
"""What was measured at one size, by a name that ends with the unit: `opening, s`."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One value by size, and its value at the target if it goes on as between the two largest."""

    name: str
    of: str
    """What sizes count: pairs, trials, nodes."""
    measured: Mapping[int, float]
    slope: float
    """What one more adds, between the two largest sizes."""
    slope_before: float | None
    """The same between the two sizes before: a slope that grows predicts too little."""
    target: int
    predicted: float


def lines(of: str, measured: Mapping[int, Values], target: int) -> list[Line]:
    """A line for each value that was measured at every size."""
    sizes = sorted(measured)
    return [
        _line(name, of, {size: measured[size][name] for size in sizes}, target)
        for name in measured[sizes[0]]
    ]


def _line(name: str, of: str, values: Mapping[int, float], target: int) -> Line:
    *smaller, before, last = values
    slope = _slope(values, before, last)
    return Line(
        name=name,
        of=of,
        measured=values,
        slope=slope,
        slope_before=_slope(values, smaller[-1], before) if smaller else None,
        target=target,
        predicted=values[last] + slope * (target - last),
    )


def _slope(values: Mapping[int, float], low: int, high: int) -> float:
    return (values[high] - values[low]) / (high - low)


def table(found: Sequence[Line]) -> str:
    """Lines that count the same things, as text in columns."""
    sizes = [f"{size:,}" for size in found[0].measured]
    head = [found[0].of, *sizes, "each, before", "each", f"at {found[0].target:,}"]
    rows = [_cells(line) for line in found]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def _cells(line: Line) -> list[str]:
    before = "" if line.slope_before is None else number(line.slope_before)
    values = map(number, line.measured.values())
    return [line.name, *values, before, number(line.slope), number(line.predicted)]


def number(value: float) -> str:
    """Three digits, and no exponent for what a person would write without."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def forget_peak() -> None:
    """Have `peak_mb` begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """The most resident memory of this process since `forget_peak`."""
    return _status("VmHWM")


def resident_mb() -> float:
    """The resident memory of this process now."""
    return _status("VmRSS")


def cpu_s() -> float:
    """Seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(field: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024 / 1e6
