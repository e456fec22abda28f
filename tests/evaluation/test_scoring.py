"""Metrics per image, means per dataset, and the mean over datasets."""

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from derain.config.data import DataConfig
from derain.data.loading.cache import Pixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.evaluation.protocols import score
from derain.evaluation.scoring import overall, score_dataset

Datasets = list[tuple[Prepared, Pixels]]


@pytest.fixture
def datasets(rain_datasets: tuple[Path, Path]) -> Datasets:
    prepared = [open_prepared(folder) for folder in rain_datasets]
    return list(zip(prepared, open_all_pixels(prepared, DataConfig()), strict=True))


def unchanged(rain: np.ndarray) -> np.ndarray:
    return rain


def test_the_metrics_of_a_dataset_are_the_means_over_its_images(datasets: Datasets) -> None:
    dataset, pixels = datasets[1]
    scored = score_dataset(unchanged, dataset, pixels, "rain13k")
    rainy = [score(pixels[at][0], pixels[at][1], "rain13k")["psnr_y"] for at in range(len(dataset))]
    assert [item.input["psnr_y"] for item in scored.per_picture] == rainy
    assert scored.metrics == scored.input
    assert scored.metrics["psnr_y"] == fmean(rainy)
    clean = iter([pixels[at][1] for at in range(len(dataset))])
    perfect = score_dataset(lambda _: next(clean), dataset, pixels, "rain13k")
    assert perfect.metrics["ssim_y"] == 1.0
    assert (perfect.identical, scored.identical) == (perfect.pictures, 0)
    assert perfect.input == scored.input


def test_the_overall_mean_is_over_datasets_and_not_over_images(datasets: Datasets) -> None:
    scored = [score_dataset(unchanged, dataset, pixels, "rain13k") for dataset, pixels in datasets]
    assert scored[0].pictures != scored[1].pictures
    metrics, _ = overall(scored)
    assert metrics["psnr_y"] == fmean(item.metrics["psnr_y"] for item in scored)
