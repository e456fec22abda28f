"""What a detector or a segmenter finds on the versions of an image, checked and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from derain.errors import UsageError

SIDES = ("rainy", "derained")
"""The versions that are compared with the clean image."""
KEYS = ("boxes", "labels", "scores")


class Downstream(Protocol):
    """A detector or a segmenter; any class with this method and a constructor without arguments."""

    def __call__(self, image: np.ndarray) -> Any:
        """What is found on an image: uint8, HWC, RGB, 0..255.

        Either a mapping with `boxes` (n, 4: left, top, right, bottom in pixels), `labels` (n, whole
        numbers) and `scores` (n, in [0, 1]), or a class map: (height, width), whole numbers from 0.
        """
        ...


@dataclass(frozen=True)
class Boxes:
    """Detections on one image."""

    boxes: np.ndarray
    """(n, 4), float64: left, top, right, bottom in pixels."""
    labels: np.ndarray
    """(n,), int64."""
    scores: np.ndarray
    """(n,), float64."""


Found = Boxes | np.ndarray
"""Detections, or a class map: int64 (height, width)."""


def checked(found: Any, name: str, image: np.ndarray) -> Found:
    """What a detector or segmenter returned, as `Found`. Raises UsageError if it is neither."""
    if isinstance(found, Mapping) and set(KEYS) <= set(found):
        boxes, labels, scores = (np.asarray(found[key]) for key in KEYS)
        count = len(labels)
        if (boxes.reshape(-1, 4).shape, scores.shape) == ((count, 4), (count,)):
            return Boxes(
                boxes.reshape(-1, 4).astype(np.float64),
                labels.astype(np.int64),
                scores.astype(np.float64),
            )
    elif not isinstance(found, Mapping):
        classes = np.asarray(found)
        if classes.shape == image.shape[:2] and classes.dtype.kind in "iu":
            return classes.astype(np.int64)
    raise UsageError(
        f"{name} returned {_shapes(found)} for an image of the shape {image.shape}; expected "
        "boxes (n, 4), labels (n,) and scores (n,), or a class map (height, width) of whole "
        "numbers."
    )


def found_in(
    downstream: Downstream, name: str, rainy: np.ndarray, derained: np.ndarray, clean: np.ndarray
) -> str:
    """What is found on the three versions of an image, as JSON for `agreement`.

    Of detections all are kept. Of class maps only how many pixels each class has in the version,
    in the clean image, and in both: so the agreement of a dataset is a sum over its images.
    Raises UsageError for anything else, and for detections in one version and classes in another.
    """
    sides = {"rainy": rainy, "derained": derained, "clean": clean}
    found = {side: checked(downstream(image), name, image) for side, image in sides.items()}
    if len(set(map(type, found.values()))) > 1:
        raise UsageError(f"{name} returned boxes for one version of an image, classes for another.")
    truth = found["clean"]
    if isinstance(truth, Boxes):
        return json.dumps({"boxes": {side: _lists(each) for side, each in found.items()}})
    pixels = {side: _pixels(found[side], truth) for side in SIDES}
    return json.dumps({"pixels": pixels})


def _lists(found: Found) -> list[list[float]]:
    """Detections as rows: left, top, right, bottom, label, score."""
    assert isinstance(found, Boxes)
    columns = (*found.boxes.T, found.labels, found.scores)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _pixels(found: Found, truth: np.ndarray) -> dict[str, list[int]]:
    """By class: its pixels in the version, in the clean image, and in both at one place."""
    assert isinstance(found, np.ndarray)
    counts = {}
    for number in np.union1d(found, truth).tolist():
        here, there = found == number, truth == number
        counts[str(number)] = [int(it.sum()) for it in (here, there, here & there)]
    return counts


def name_of(downstream: Any) -> str:
    """A detector's class as `module:Class`."""
    return f"{type(downstream).__module__}:{type(downstream).__qualname__}"


def _shapes(found: Any) -> str:
    if isinstance(found, Mapping):
        return ", ".join(f"{key} {np.shape(value)}" for key, value in found.items()) or "nothing"
    return f"{type(found).__name__} of the shape {np.shape(found)}"
