"""Agreement with the clean images: against a direct computation, and for hand-made cases."""

import json

import numpy as np
import pytest

from derain.errors import UsageError
from derain.evaluation.downstream import agreement, found_in
from derain.evaluation.downstream.summary import mean_average_precision

Row = list[float]


def iou(first: Row, second: Row) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def average_precision(
    images: list[list[Row]], truth: list[list[Row]], label: int, threshold: float
) -> float:
    """COCO's definition: sorted by score, each detection takes the best free truth; the precision
    at a recall is the best one at that recall or a higher one; the mean over 101 recalls."""
    wanted = [[row for row in image if row[4] == label] for image in truth]
    free = [[True] * len(image) for image in wanted]
    order = sorted(
        ((row[5], at, row) for at, image in enumerate(images) for row in image if row[4] == label),
        key=lambda item: -item[0],
    )
    hits = []
    for _, at, row in order:
        ious = [iou(row, it) if free[at][n] else -1.0 for n, it in enumerate(wanted[at])]
        best = int(np.argmax(ious)) if ious else -1
        hits.append(best >= 0 and ious[best] >= threshold)
        if hits[-1]:
            free[at][best] = False
    found = np.cumsum(hits)
    recall = found / sum(map(len, wanted))
    precision = found / np.arange(1, len(hits) + 1)
    recalls = np.linspace(0, 1, 101)
    return float(np.mean([max(precision[recall >= each], default=0.0) for each in recalls]))


def scene(rng: np.random.Generator, count: int) -> list[Row]:
    corners = rng.uniform(0, 200, (count, 2))
    sides = rng.uniform(20, 60, (count, 2))
    labels, scores = rng.integers(1, 4, count), rng.uniform(0.5, 1, count)
    columns = (*corners.T, *(corners + sides).T, labels, scores)
    return [list(map(float, row)) for row in zip(*columns, strict=True)]


def moved(rng: np.random.Generator, rows: list[Row]) -> list[Row]:
    """Some of the boxes, shifted, with other scores, and a few that are not there."""
    kept = [row for row in rows if rng.random() < 0.8]
    shifted = [[*(np.array(row[:4]) + rng.normal(0, 3, 4)), row[4], rng.random()] for row in kept]
    return shifted + scene(rng, 2)


def test_map_is_that_of_a_direct_computation() -> None:
    rng = np.random.default_rng(0)
    truth = [scene(rng, 6) for _ in range(8)]
    images = [moved(rng, rows) for rows in truth]
    measured = mean_average_precision(images, truth)
    at = {
        threshold: np.mean([average_precision(images, truth, n, threshold) for n in (1, 2, 3)])
        for threshold in np.linspace(0.5, 0.95, 10)
    }
    assert measured["map_50"] == pytest.approx(at[0.5], abs=1e-9)
    assert measured["map"] == pytest.approx(np.mean(list(at.values())), abs=1e-9)
    assert 0.2 < at[0.5] < 0.95


def test_the_same_detections_agree_wholly_and_none_not_at_all() -> None:
    rows = scene(np.random.default_rng(1), 5)
    assert mean_average_precision([rows], [rows])["map"] == pytest.approx(1.0)
    assert mean_average_precision([[]], [rows]) == {"map": 0.0, "map_50": 0.0}
    assert mean_average_precision([rows], [[]]) == {"map": None, "map_50": None}


def test_detections_on_the_three_versions_are_compared_with_the_clean_one() -> None:
    images = {level: np.full((40, 50, 3), level, np.uint8) for level in (10, 20, 30)}

    def detector(image: np.ndarray) -> dict[str, np.ndarray]:
        count = {10: 0, 20: 1, 30: 2}[int(image[0, 0, 0])]
        boxes = np.array([[0.0, 0, 10, 10], [20, 20, 40, 30]])[:count]
        return {"boxes": boxes, "labels": np.ones(count, int), "scores": np.full(count, 0.9)}

    text = found_in(detector, "detector", images[10], images[20], images[30])
    measured = agreement([text])
    assert measured["kind"] == "detection"
    assert [measured[side]["detections"] for side in ("rainy", "derained", "clean")] == [0, 1, 2]
    assert measured["rainy"]["map"] == 0.0
    assert measured["derained"]["map_50"] == pytest.approx(51 / 101)  # of 101 recalls, 0 to 0.5


def test_miou_is_pixels_of_both_by_pixels_of_either_over_the_dataset() -> None:
    clean = np.zeros((4, 10, 3), np.uint8)
    clean[:, 5:] = 1  # class 1 on the right half
    derained = clean.copy()
    derained[:, 5] = 0  # a column of class 1 is called 0
    texts = [
        found_in(lambda image: image[:, :, 0].astype(int), "segmenter", rainy, derained, clean)
        for rainy in (clean, np.zeros_like(clean))
    ]
    measured = agreement(texts)
    assert measured["kind"] == "segmentation"
    assert measured["derained"]["miou"] == pytest.approx((20 / 24 + 16 / 20) / 2)
    assert measured["rainy"]["miou"] == pytest.approx((40 / 60 + 20 / 40) / 2)
    assert measured["rainy"]["classes"] == 2


@pytest.mark.parametrize(
    "found",
    [{"boxes": np.zeros((2, 4)), "labels": np.zeros(2)}, np.zeros((3, 3), int), np.zeros((4, 5))],
    ids=["no scores", "another size", "not whole numbers"],
)
def test_anything_else_is_refused_with_what_was_expected(found: object) -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(UsageError, match="expected boxes"):
        found_in(lambda _: found, "my:Detector", image, image, image)


def test_boxes_and_classes_are_not_mixed() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    boxes = {"boxes": [[0, 0, 2, 2]], "labels": [1], "scores": [1.0]}
    classes = np.zeros((4, 5), int)
    answers = iter([boxes, classes, boxes])
    with pytest.raises(UsageError, match=r"my:Detector .* one version of an image"):
        found_in(lambda _: next(answers), "my:Detector", image, image, image)
    of_each = [
        found_in(lambda _, it=it: it, "my:Detector", *[image] * 3) for it in (boxes, classes)
    ]
    with pytest.raises(UsageError, match="some images"):
        agreement(of_each)


def test_what_was_found_is_json_that_keeps_every_digit() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    boxes = {"boxes": [[0.1, 0.2, 1 / 3, 3]], "labels": [7], "scores": [2 / 3]}
    kept = json.loads(found_in(lambda _: boxes, "d", image, image, image))["boxes"]["clean"]
    assert kept == [[0.1, 0.2, 1 / 3, 3.0, 7, 2 / 3]]
