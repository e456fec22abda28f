"""NIQE and BRISQUE: metrics of an image without a clean one beside it; lower is better for both.

    measure = NoReference(["niqe_live", "brisque_live"])
    measure(image)  # uint8 HWC RGB -> {"niqe_live": 3.54, "brisque_live": 30.43}

Implementations of one metric differ from each other by more than methods do, so a name says which
one it is, and `identity` all of it. Values with different identities are not comparable.
docs/reference/protocols.md has the table.
"""

from collections.abc import Callable, Sequence

import numpy as np

from derain.errors import DataError, UsageError
from derain.evaluation.no_reference.brisque import Brisque
from derain.evaluation.no_reference.niqe import Niqe

METRICS: dict[str, Callable[[], Niqe | Brisque]] = {"niqe_live": Niqe, "brisque_live": Brisque}


class NoReference:
    """Measures images by the chosen metrics; cheap to build, so each worker builds its own.

    Raises UsageError for an unknown name.
    """

    def __init__(self, names: Sequence[str] = tuple(METRICS)) -> None:
        check_metrics(names)
        self._metrics = {name: METRICS[name]() for name in names}

    def __call__(self, image: np.ndarray) -> dict[str, float]:
        """The metrics of a uint8 HWC RGB image, by name.

        Raises DataError for an image that one of them cannot measure: another shape or type, too
        small, or without structure (black, or of one colour).
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"The image is {image.dtype} of shape {image.shape}, expected uint8 of shape "
                "(height, width, 3), RGB."
            )
        return {name: metric(image) for name, metric in self._metrics.items()}

    def identities(self) -> dict[str, str]:
        """By name, what is stored beside the values: version, parameters, luma and size."""
        return {name: f"{name} {metric.identity}" for name, metric in self._metrics.items()}


def check_metrics(names: Sequence[str]) -> None:
    """Raise UsageError for an unknown metric."""
    for name in names:
        if name not in METRICS:
            raise UsageError(
                f"Unknown metric without reference {name!r}; choose from: {', '.join(METRICS)}."
            )
