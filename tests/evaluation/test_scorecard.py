"""The report of an evaluation: measured values, and published ones with their comparability."""

from statistics import fmean
from typing import Any

import pytest

from derain.evaluation.scorecard import SETS, TABLE3, markdown


def result(dataset: str, split: str, protocol: str = "rain13k") -> dict[str, Any]:
    metrics = {"psnr_y": 31.234, "ssim_y": 0.91234}
    means = {"metrics": metrics, "input": {"psnr_y": 26.9, "ssim_y": 0.838}}
    item = {"name": "prepared", "pictures": 100, "dataset": dataset, "split": split}
    item["by_protocol"] = {protocol: means}
    return {"model": "models:/net@champion", "protocols": [protocol], "datasets": [item]}


@pytest.mark.parametrize(
    ("dataset", "split", "protocol", "statement"),
    [
        ("rain13k", "rain100l", "rain13k", "Comparable only if this model was trained on Rain13K"),
        ("rain100l", "test", "rain13k", "Not comparable**: the images"),
        ("rain13k", "rain100l", "five_set", "Not comparable**: the protocol"),
    ],
)
def test_published_values_say_whether_they_are_comparable(
    dataset: str, split: str, protocol: str, statement: str
) -> None:
    text = markdown(result(dataset, split, protocol))
    assert statement in text
    assert "| FCLIP-UNet | 38.06 | 0.972 |" in text
    assert ("| **this model** | 31.23 | 0.912 |" in text) == (protocol == "rain13k")


def test_other_datasets_have_no_published_values() -> None:
    text = markdown(result("paired", "test"))
    assert "| prepared | 100 | rain13k | 31.234 | 0.9123 | 26.900 | 0.8380 |" in text
    assert "FCLIP-UNet" not in text


@pytest.mark.parametrize(
    ("network", "psnr", "ssim"), [("FCLIP-UNet", 33.48, 0.934), ("IDT", 32.28, 0.924)]
)
def test_the_table_has_the_averages_of_the_paper(network: str, psnr: float, ssim: float) -> None:
    row = TABLE3[network]
    assert len(row) == 2 * len(SETS)
    assert fmean(row[::2]) == pytest.approx(psnr, abs=0.006)
    assert fmean(row[1::2]) == pytest.approx(ssim, abs=0.0006)
