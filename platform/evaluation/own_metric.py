"""A metric of the user's, `evaluate --metric module:Name`: built, checked, and called on images."""

import math

import numpy as np

from derain.errors import ConfigError, DataError, DerainError
from derain.plugins.options import build_plugin
from derain.plugins.protocols import Metric

KEY = "--metric"
SIDE_PX = 64
"""Side of the images that a metric is tried on before anything is scored."""


def build_metric(name: str) -> Metric:
    """An object of the class `module:Name`. Raises ConfigError."""
    metric: Metric = build_plugin(name, {}, what="metric", key=f"{KEY} {name}")
    return metric


def check_metric(name: str) -> None:
    """Build a metric and call it once. Raises ConfigError, which says what was expected."""
    metric = build_metric(name)
    derained, clean = np.random.default_rng(0).integers(
        0, 256, (2, SIDE_PX, SIDE_PX, 3), dtype=np.uint8
    )
    try:
        measured(metric, name, derained, clean)
    except DerainError as error:
        raise ConfigError(f"{KEY}: {error} See docs/guides/plugins.md.") from error


def measured(metric: Metric, name: str, image: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """The value for an image against the clean one, by the name of the class.

    Raises DataError if the metric fails or returns anything but a finite number.
    """
    expected = "(derained, clean), uint8 HWC RGB -> a finite number"
    try:
        found = metric(image, clean)
    except Exception as error:  # the class's own code
        raise DataError(
            f"the metric {name} fails: {type(error).__name__}: {error}; expected {expected}."
        ) from error
    is_number = isinstance(found, int | float | np.number)
    if not is_number or not math.isfinite(found):
        shown = repr(found) if is_number else f"a {type(found).__name__}"
        raise DataError(f"the metric {name}: expected {expected}; found {shown}.")
    return {name.partition(":")[2]: float(found)}
