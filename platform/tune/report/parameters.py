"""The values of one parameter over the trials of a sweep: their names, heights and groups.

A parameter that a trial does not have, because its condition did not hold, is None there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from derain.config.sweep import Dimension

ABSENT = "none"
ABSENT_BELOW = 0.2
"""Where some trials have no number, the numbers begin at this height and None is at 0."""
TICK_GAP = 0.06
MANY_VALUES = 6
"""An axis names all of so many numbers, of more only the ends."""
GROUPS = 4
GROUP_SIZE = 3
"""Drawn numbers are put into at most so many groups, of at least so many trials each."""

Ticks = dict[str, float]
"""Label to height in 0..1."""


def label(value: Any, dimension: Dimension) -> str:
    """The name that the space gives a value, else the value, short."""
    named = dimension.grid or dimension.choice
    for name, listed in named.items() if isinstance(named, dict) else ():
        if listed == value:
            return name
    if value is None:
        return ABSENT
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def places(values: Sequence[Any], dimension: Dimension) -> tuple[np.ndarray, Ticks]:
    """Heights in 0..1 of a parameter's values, and the labels of its axis.

    Numbers are to scale, logarithmic where they span a factor of 50; where a trial has none, that
    is below all numbers. Anything else stands at equal distances in the order of the space.
    """
    if all(_is_number(value) or value is None for value in values) and set(values) != {None}:
        return _to_scale(values, dimension)
    names = [label(value, dimension) for value in values]
    order = [ABSENT, *(label(value, dimension) for value in dimension.named().values())]
    known = sorted(set(names), key=lambda name: order.index(name) if name in order else len(order))
    at = {name: place / max(1, len(known) - 1) for place, name in enumerate(known)}
    return np.array([at[name] for name in names]), at


def groups(values: Sequence[Any]) -> list[str]:
    """The group of each value for an analysis of variance: itself; None is a group of its own.

    Drawn numbers (more of them than half of their trials) are grouped by rank: a number alone in
    its group explains its trial's figure whatever it is.
    """
    present = [number for number in values if _is_number(number)]
    if len(set(present)) <= len(present) / 2:
        return [str(value) for value in values]
    count = min(GROUPS, max(1, len(present) // GROUP_SIZE))
    edges = np.quantile(present, np.arange(1, count) / count)
    return [
        f"part {np.searchsorted(edges, value)}" if _is_number(value) else str(value)
        for value in values
    ]


def stretched(numbers: np.ndarray) -> np.ndarray:
    """Numbers moved to 0..1; all 0.5 where they are equal."""
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span else np.full(len(numbers), 0.5)


def _to_scale(values: Sequence[Any], dimension: Dimension) -> tuple[np.ndarray, Ticks]:
    absent = np.array([value is None for value in values])
    numbers = np.array([value for value in values if value is not None], dtype=float)
    if numbers.min() > 0 and numbers.max() / numbers.min() >= 50:
        numbers = np.log(numbers)
    floor = ABSENT_BELOW if absent.any() else 0.0
    heights = np.zeros(len(values))
    heights[~absent] = floor + (1 - floor) * stretched(numbers)
    shown = dict(zip(values, heights, strict=True))
    present = sorted(value for value in shown if value is not None)
    if len(present) > MANY_VALUES:
        present = [present[0], present[-1]]
    ticks = {label(None, dimension): 0.0} if absent.any() else {}
    for value in present:
        if not ticks or shown[value] - max(ticks.values()) >= TICK_GAP:
            ticks[label(value, dimension)] = float(shown[value])
    return heights, ticks


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
