"""The report: the ranking beside the published table, in words that no reader can mistake."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.config import Config
from derain.tune import report
from derain.tune.report import table_of

REFERENCE = {
    "source": "Table 11 of a paper",
    "psnr_y": {"low": 30.63, "high": 30.5},
    "ssim_y": {"low": 0.892},
}
GRID = np.zeros((4, 12, 3), np.uint8)


def config(output_dir: Path, **values: Any) -> Config:
    tree = {
        "name": "search",
        "output_dir": str(output_dir),
        "profile": "demo",
        "model": {"name": "fclip_unet", "encoder_weights": "random"},
        "train": {"steps": 3},
        "sweep": {
            "space": {"train.lr": {"grid": {"low": 0.1, "<high>": 0.2}}},
            "reference": REFERENCE,
        },
    }
    return Config.model_validate({**tree, **values})


@pytest.fixture
def ranking(tmp_path: Path) -> list[dict[str, Any]]:
    """Two trials that ended, in the order of their figures."""
    trials = []
    for name, psnr in (("low", 31.23456), ("<high>", 29.0)):
        folder = tmp_path / "search" / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(
            '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n'
        )
        trials.append(
            {
                "name": name,
                "status": "finished",
                "seed": 0,
                "params": {"train.lr": psnr / 100, "loss.pixel": name},
                "folder": str(folder),
                "metrics": {"psnr_y": psnr, "ssim_y": 0.91},
                "input": {"psnr_y": 30.0, "ssim_y": 0.9},
                "seconds": 90.0,
            }
        )
    return trials


def result(ranking: list[dict[str, Any]]) -> dict[str, Any]:
    failed = {
        "name": "broken",
        "status": "failed",
        "seed": 0,
        "params": {"train.lr": 9.0},
        "metrics": None,
        "input": None,
        "seconds": None,
        "error": "the loss is not finite",
    }
    registered = {"name": "net", "version": 3, "alias": "challenger"}
    return {"trials": [*ranking, failed], "best": "low", "registered": registered}


def test_the_published_figures_stand_beside_the_measured(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    header, first, second = table_of(config(tmp_path), ranking)
    assert header[-3:] == ["published PSNR", "difference (dB)", "published SSIM"]
    assert first == ["low", "31.235", "0.9100", "+1.235", "1.5", "30.63", "+0.60", "0.892"]
    assert second == ["<high>", "29.000", "0.9100", "-1.000", "1.5", "", "", ""]


def test_without_a_reference_there_are_no_published_columns(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = config(tmp_path).replaced({"sweep.reference": None}, "test")
    assert {len(row) for row in table_of(alone, ranking)} == {5}


def test_both_files_say_what_the_figures_mean(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    planned = config(tmp_path)
    report.write(planned, ranking, result(ranking), GRID)
    markdown = (planned.folder / report.MARKDOWN).read_text()
    page = (planned.folder / report.HTML).read_text()
    for text in (markdown, page):
        assert "Not comparable" in text
        assert "Table 11 of a paper" in text
        assert "broken: the loss is not finite" in text
        assert "net version 3 as challenger" in text
        assert "30.63" in text
        assert "Rainy input: 30.000 dB" in text
    assert "| <high> |" in markdown
    assert "&lt;high&gt;" in page
    assert "<high>" not in page
    folder = (planned.folder / report.MARKDOWN).parent
    for name in ("curves.png", "parallel.png", "gallery.png"):
        assert f"({name})" in markdown
        Image.open(folder / name).verify()
    assert page.count("data:image/png;base64,") == 3


def test_the_published_setting_is_not_called_incomparable(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    planned = config(tmp_path, profile="paper")
    report.write(planned, ranking, result(ranking), GRID)
    assert "Not comparable" not in (planned.folder / report.MARKDOWN).read_text()


def test_the_csv_has_every_trial_with_its_values(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    planned = config(tmp_path)
    report.write(planned, ranking, result(ranking), GRID)
    with (planned.folder / report.CSV).open(newline="") as file:
        low, high, broken = csv.DictReader(file)
    assert (low["name"], low["psnr_y"], low["input_psnr_y"]) == ("low", "31.23456", "30.0")
    assert high["loss.pixel"] == '"<high>"'
    assert (broken["status"], broken["psnr_y"]) == ("failed", "")
    assert (broken["train.lr"], broken["error"]) == ("9.0", "the loss is not finite")


def test_drawn_values_stand_in_the_table(ranking: list[dict[str, Any]], tmp_path: Path) -> None:
    drawn = {"train.lr": {"uniform": [0.1, 0.5]}, "loss.lambda_p": {"integers": [1, 3]}}
    changes = {"sweep.space": drawn, "sweep.search": "random", "sweep.samples": 2}
    header, first, _ = table_of(config(tmp_path).replaced(changes, "test"), ranking)
    assert header[:3] == ["trial", "train.lr", "loss.lambda_p"]
    assert first[:3] == ["low", "0.312", ""]
