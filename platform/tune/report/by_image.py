"""Trials compared image by image, and which trial each is compared with.

The results that a trial leaves in its folder have the metrics of every validation image. Two trials
score the same images, so the differences between images cancel in theirs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derain.pipelines.train.run_folder import RESULT, read_json
from derain.tune.report.compare import Difference, Row, interval

Image = tuple[str, str]
"""The name of a dataset, and the key of an image in it."""


def image_scores(trial: Row) -> dict[Image, Mapping[str, Any]]:
    """`metrics` and `input` of each validation image; empty for a trial that has not finished."""
    path = Path(trial["folder"]) / RESULT
    if not path.is_file():
        return {}
    return {
        (dataset["name"], image["key"]): image
        for dataset in read_json(path)["datasets"]
        for image in dataset["per_picture"]
    }


def partners(ranking: Sequence[Row], trials: Sequence[Row]) -> dict[str, Row]:
    """By the name of each trial, the one that it is compared with: of the best point, same seed.

    Trials of one seed have seen the same batches. Those of the best point have no partner, nor has
    one whose seed the best point lacks.
    """
    best = {row["seed"]: row for row in ranking if row["point"] == ranking[0]["point"]}
    return {
        row["name"]: best[row["seed"]]
        for row in trials
        if row["seed"] in best and row["point"] != ranking[0]["point"]
    }


def differences(ranking: Sequence[Row], metric: str) -> dict[str, Difference]:
    """By trial: its partner's metric minus its own, over the validation images of both.

    Without those that have no partner, or share fewer than two images with it.
    """
    found = {}
    scores = {row["name"]: image_scores(row) for row in ranking}
    for name, partner in partners(ranking, ranking).items():
        own, best = scores[name], scores[partner["name"]]
        paired = [
            best[image]["metrics"][metric] - own[image]["metrics"][metric]
            for image in best
            if image in own
        ]
        if (difference := interval(paired)) is not None:
            found[name] = difference
    return found
