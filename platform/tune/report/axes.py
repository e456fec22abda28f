"""The axis of one parameter in a plot: labels of its values, and their heights.

A trial whose condition did not hold has no value for a parameter; it is None here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from derain.config.sweep import Dimension

ABSENT = "none"
ABSENT_BELOW = 0.2
"""If some trials have no number, numbers start at this height and None is at 0."""
TICK_GAP = 0.06
"""Least distance between two labels, as a share of the axis."""
MAX_TICKS = 6
"""With more numbers than this, only the ends are labelled."""

Ticks = dict[str, float]
"""Label to height in 0..1."""


def label(value: Any, dimension: Dimension) -> str:
    """The name that the space gives a value; default: the value, at most three digits."""
    options = dimension.grid or dimension.choice
    if isinstance(options, dict):
        for name, option in options.items():
            if option == value:
                return name
    if value is None:
        return ABSENT
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def place_values(values: Sequence[Any], dimension: Dimension) -> tuple[np.ndarray, Ticks]:
    """Heights in 0..1 of a parameter's values, and the labels of its axis.

    Numbers are to scale, logarithmic if they span a factor of 50 or more; trials without a value
    are below all numbers. Other values are equally spaced, in the order of the space.
    """
    if all(is_number(value) or value is None for value in values) and set(values) != {None}:
        return _to_scale(values, dimension)
    names = [label(value, dimension) for value in values]
    order = [ABSENT, *(label(value, dimension) for value in dimension.named().values())]
    present = sorted(
        set(names), key=lambda name: order.index(name) if name in order else len(order)
    )
    ticks = {name: index / max(1, len(present) - 1) for index, name in enumerate(present)}
    return np.array([ticks[name] for name in names]), ticks


def to_unit_range(numbers: np.ndarray) -> np.ndarray:
    """Numbers scaled linearly to 0..1; all 0.5 if they are equal."""
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span else np.full(len(numbers), 0.5)


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_scale(values: Sequence[Any], dimension: Dimension) -> tuple[np.ndarray, Ticks]:
    absent = np.array([value is None for value in values])
    numbers = np.array([value for value in values if value is not None], dtype=float)
    if numbers.min() > 0 and numbers.max() / numbers.min() >= 50:
        numbers = np.log(numbers)
    floor = ABSENT_BELOW if absent.any() else 0.0
    heights = np.zeros(len(values))
    heights[~absent] = floor + (1 - floor) * to_unit_range(numbers)
    height_of = dict(zip(values, heights, strict=True))
    present = sorted(value for value in height_of if value is not None)
    if len(present) > MAX_TICKS:
        present = [present[0], present[-1]]
    ticks = {label(None, dimension): 0.0} if absent.any() else {}
    for value in present:
        if not ticks or height_of[value] - max(ticks.values()) >= TICK_GAP:
            ticks[label(value, dimension)] = float(height_of[value])
    return heights, ticks
