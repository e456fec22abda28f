"""The agreement of detections or class maps over a dataset: mAP as COCO defines it, and mIoU.

mAP is computed by pycocotools, COCO's own implementation: average precision at 101 recalls, of the
at most 100 detections of an image with the highest scores, averaged over the classes and over the
IoU thresholds 0.50, 0.55 ... 0.95; `map_50` at 0.50 alone.
"""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from derain.errors import UsageError
from derain.evaluation.downstream.found import SIDES

TRUTH_SCORE = 0.5
"""Detections on the clean image count as truth from this score."""
LABEL, SCORE = 4, 5
Rows = Sequence[Sequence[float]]


def agreement(found: Sequence[str]) -> dict[str, Any]:
    """The agreement of a dataset with its clean images; `found` has the JSON of `found_in`.

    Of detections `map` and `map_50` by version, None without any truth, and how many there are on
    each; of class maps `miou`: the mean over the classes of shared pixels by pixels of either, both
    summed over the dataset. Raises UsageError for detections in some images and classes in others.
    """
    images = [json.loads(text) for text in found]
    with_boxes = ["boxes" in image for image in images]
    if all(with_boxes):
        return _detections([image["boxes"] for image in images])
    if any(with_boxes):
        raise UsageError("The detector returned boxes for some images, classes for others.")
    by_side = {side: [image["pixels"][side] for image in images] for side in SIDES}
    return {"kind": "segmentation", **{side: _miou(each) for side, each in by_side.items()}}


def _detections(images: Sequence[Mapping[str, Rows]]) -> dict[str, Any]:
    truth = [[row for row in image["clean"] if row[SCORE] >= TRUTH_SCORE] for image in images]
    described: dict[str, Any] = {
        "kind": "detection",
        "truth": f"detections on the clean image with a score of at least {TRUTH_SCORE}",
        "clean": {"detections": sum(map(len, truth))},
    }
    for side in SIDES:
        rows = [image[side] for image in images]
        sure = sum(row[SCORE] >= TRUTH_SCORE for image in rows for row in image)
        described[side] = {**mean_average_precision(rows, truth), "detections": sure}
    return described


def mean_average_precision(
    images: Sequence[Rows], truth: Sequence[Rows]
) -> dict[str, float | None]:
    """`map` and `map_50` of detections; rows are left, top, right, bottom, label, score.

    None if there is no truth; 0 without a detection.
    """
    if not any(truth):
        return {"map": None, "map_50": None}
    if not any(images):
        return {"map": 0.0, "map_50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its tables
        expected = COCO()
        expected.dataset = _coco(truth, images)
        expected.createIndex()
        measured = COCOeval(expected, expected.loadRes(_annotations(images)), "bbox")
        measured.evaluate()
        measured.accumulate()
    precision = measured.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class; all areas
    return {"map": _mean(precision), "map_50": _mean(precision[:1])}


def _mean(precision: np.ndarray) -> float:
    """Over the classes of which there is truth: COCO marks the others by -1."""
    return float(np.mean(precision[precision > -1]))


def _coco(truth: Sequence[Rows], images: Sequence[Rows]) -> dict[str, Any]:
    labels = {int(row[LABEL]) for side in (truth, images) for image in side for row in image}
    annotations = [
        {**item, "id": number, "area": item["bbox"][2] * item["bbox"][3], "iscrowd": 0}
        for number, item in enumerate(_annotations(truth), 1)
    ]
    return {
        "info": {},
        "images": [{"id": number} for number in range(len(truth))],
        "categories": [{"id": label} for label in sorted(labels)],
        "annotations": annotations,
    }


def _annotations(images: Sequence[Rows]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "category_id": int(row[LABEL]),
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
            "score": row[SCORE],
        }
        for number, image in enumerate(images)
        for row in image
    ]


def _miou(images: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Any]:
    totals: dict[str, np.ndarray] = {}
    for image in images:
        for name, counts in image.items():
            totals[name] = totals.get(name, np.zeros(3, np.int64)) + np.asarray(counts)
    ratios = [both / (here + there - both) for here, there, both in totals.values()]
    return {"miou": float(fmean(ratios)), "classes": len(ratios)}
