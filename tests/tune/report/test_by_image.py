"""Trials compared on the images that both have scored, with the best trial of the same seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from derain.tune.report.by_image import differences, image_scores, partners

RESULT = {"checkpoint": "step-4", "metrics": {}, "steps": 4}


def trial(folder: Path, point: str, seed: int, psnrs: dict[str, float] | None) -> dict[str, Any]:
    """A trial that has scored images, by key, or has not finished."""
    name = f"{point},seed={seed}"
    (folder / name).mkdir()
    if psnrs is not None:
        images = [
            {"key": key, "metrics": {"psnr_y": psnr}, "input": {"psnr_y": 20.0}}
            for key, psnr in psnrs.items()
        ]
        datasets = [{"name": "held_out", "per_picture": images}]
        (folder / name / "result.json").write_text(json.dumps(RESULT | {"datasets": datasets}))
    return {"name": name, "point": point, "seed": seed, "folder": str(folder / name)}


def test_differences_are_of_the_same_image_and_the_same_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = {
        (point, seed): dict(zip("abcde", rng.normal(30, 5, 5), strict=True))
        for point in ("best", "other")
        for seed in (0, 1)
    }
    ranking = [trial(tmp_path, *name, psnrs) for name, psnrs in scores.items()]
    found = differences(ranking, "psnr_y")
    assert list(found) == ["other,seed=0", "other,seed=1"]
    for seed in (0, 1):
        best, other = scores["best", seed], scores["other", seed]
        paired = stats.ttest_1samp([best[key] - other[key] for key in "abcde"], 0)
        expected = paired.confidence_interval(0.95)
        difference = found[f"other,seed={seed}"]
        assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
        assert difference.mean == pytest.approx((expected.low + expected.high) / 2)


def test_only_images_that_both_have_scored_count(tmp_path: Path) -> None:
    ranking = [
        trial(tmp_path, "best", 0, {"a": 30.0, "b": 31.0, "c": 99.0}),
        trial(tmp_path, "other", 0, {"b": 29.0, "a": 29.0, "d": 0.0}),
        trial(tmp_path, "one", 0, {"a": 29.0}),
        trial(tmp_path, "stopped", 0, None),
    ]
    found = differences(ranking, "psnr_y")
    assert list(found) == ["other,seed=0"]
    assert found["other,seed=0"].mean == 1.5
    assert image_scores(ranking[-1]) == {}


def test_a_seed_that_the_best_point_lacks_has_no_partner(tmp_path: Path) -> None:
    ranking = [trial(tmp_path, "best", 0, {}), trial(tmp_path, "other", 1, {})]
    assert partners(ranking, ranking) == {}
