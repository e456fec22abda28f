"""The report of a sweep: its notes, tables and files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.config import Config
from derain.evaluation.gallery import GalleryImage
from derain.tune.report import compare, gallery, report
from tests.folders import write_prepared

REFERENCE = {
    "source": "Table 11 of a paper",
    "psnr_y": {"low": 30.63, "high": 30.5},
    "ssim_y": {"low": 0.892},
}
RAIN, DERAINED, CLEAN = (np.full((24, 32, 3), level, np.uint8) for level in (90, 60, 50))
IMAGES = [
    GalleryImage(
        "held_out", "a", RAIN, CLEAN, {"low": DERAINED, "<high>": RAIN}, {"low": {"psnr_y": 31.0}}
    )
]

RESULT = {"checkpoint": "step-4", "metrics": {}, "steps": 4}


def config(output_dir: Path, **values: Any) -> Config:
    tree = {
        "name": "search",
        "output_dir": str(output_dir),
        "profile": "demo",
        "model": {"name": "fclip_unet", "encoder_weights": "random"},
        "data": {
            role: write_prepared(output_dir / role, "rain13k", role)
            for role in ("train", "validation")
        },
        "train": {"steps": 3},
        "sweep": {
            "space": {
                "train.lr": {"grid": {"low": 0.1, "<high>": 0.2}},
                "train.weight_decay": {"grid": {"none": 0.0, "some": 0.1}},
            },
            "reference": REFERENCE,
        },
    }
    return Config.model_validate({**tree, **values})


@pytest.fixture
def ranking(tmp_path: Path) -> list[dict[str, Any]]:
    """Two finished trials, in the order of their PSNR."""
    trials = []
    for name, psnr in (("low", 31.23456), ("<high>", 29.0)):
        folder = tmp_path / "search" / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(
            '{"step": 1, "train_psnr": 20.5}\n{"step": 2, "train_psnr": 21.5}\n'
        )
        trials.append(
            {
                "name": name,
                "point": name,
                "status": "finished",
                "seed": 0,
                "params": {"train.lr": psnr / 100, "train.weight_decay": psnr},
                "folder": str(folder),
                "metrics": {"psnr_y": psnr, "ssim_y": 0.91},
                "input": {"psnr_y": 30.0, "ssim_y": 0.9},
                "costs": {},
                "seconds": 90.0,
                "steps": 3,
            }
        )
    return trials


def result(ranking: list[dict[str, Any]]) -> dict[str, Any]:
    failed = {
        "name": "broken",
        "point": "broken",
        "status": "failed",
        "seed": 0,
        "params": {"train.lr": 9.0},
        "metrics": None,
        "input": None,
        "seconds": None,
        "error": "the loss is not finite",
    }
    registered = {"name": "net", "version": 3, "alias": "challenger"}
    points = compare.standings(ranking, "psnr_y")
    found = {"best": "low", "registered": registered, "points": points, "front": ["low"]}
    found |= {"test": None, "test_error": None, "mlflow_run_id": "run of the sweep"}
    return {"trials": [*ranking, failed], **found}


def written(
    planned: Config, ranking: list[dict[str, Any]], found: dict[str, Any] | None = None
) -> tuple[str, str]:
    """The report as Markdown and as HTML."""
    folder = planned.folder / report.FOLDER
    folder.mkdir(exist_ok=True)
    gallery.draw_grid(IMAGES, folder / gallery.GRID)
    gallery.write_page(planned, IMAGES, folder / gallery.PAGE)
    report.write(planned, ranking, found or result(ranking))
    files = (planned.folder / report.MARKDOWN, planned.folder / report.HTML)
    markdown, page = (file.read_text() for file in files)
    return markdown, page


def test_both_files_have_the_results_and_their_context(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    planned = config(tmp_path)
    markdown, page = written(planned, ranking)
    for text in (markdown, page):
        assert "Not comparable" in text
        assert "One seed for each point" in text
        assert "Table 11 of a paper" in text
        assert "broken: the loss is not finite" in text
        assert "net version 3 as challenger" in text
        assert "30.63" in text
        assert "+0.60" not in text  # ours minus what was published
        assert "Config, resolved: " in text
        assert "run of the sweep" in text
        assert re.search(r"Data, train: train \(sha256 [0-9a-f]{64}\)\.", text)
        assert "Data, test: none." in text
        assert "The importance of parameters is not estimated from 2 points" in text
        assert "no trial was validated while it trained" in text
        assert "Each trial: 3 steps of 16 crops of 128 px, seed 0." in text
        assert "Rainy input: 30.000 dB" in text
    assert "| <high> |" in markdown
    assert "&lt;high&gt;" in page
    assert "<high>" not in page
    folder = (planned.folder / report.MARKDOWN).parent
    for name in ("curves.png", "parallel.png", "gallery.png"):
        assert f"({name})" in markdown
        Image.open(folder / name).verify()
    assert page.count("data:image/png;base64,") == 3
    assert "[Compare them](gallery.html)" in markdown
    assert "<a href='gallery.html'>" in page
    images = (folder / "gallery.html").read_text()
    assert "Metrics under the protocol rain13k v1." in images
    assert "<high>" not in images


def test_a_sweep_with_repeats_compares_its_points(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Mean, spread and paired difference, and the seeds, in both files."""
    planned = config(tmp_path, seed=4).replaced({"sweep.repeats": 2}, "test")
    for number, moved in enumerate((0.2, -0.1)):
        again = {**ranking[number], "name": f"{ranking[number]['name']},seed=5", "seed": 5}
        psnr = ranking[number]["metrics"]["psnr_y"] + moved
        ranking.append({**again, "metrics": {"psnr_y": psnr, "ssim_y": 0.9}})
    ranking[0]["seed"] = ranking[1]["seed"] = 4
    ranking[1]["metrics"]["psnr_y"] = ranking[3]["metrics"]["psnr_y"] = 31.0
    ordered = compare.ranked(ranking, "psnr_y", {})
    markdown, page = written(planned, ordered)
    for text in (markdown, page):
        assert "31.335 ± 0.141" in text
        assert "not significantly different (95 %)" in text
        assert "seeds 4 to 5." in text
    assert markdown.index("## Points (mean over seeds)") < markdown.index("## Trials")
    assert (planned.folder / report.POINTS).read_text().splitlines()[1].startswith("low,2,31.33")


def test_stopped_trials_are_listed_with_their_step(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    planned = config(tmp_path)
    best, other = ranking
    early = {"status": "stopped", "steps": 2, "input": None, "seconds": None}
    stopped = {key: value for key, value in {**other, **early}.items() if key != "costs"}
    found = {**result([best]), "trials": [stopped, best]}
    text, _ = written(planned, [best], found)
    assert "| low | 3 | 31.235 |" in text
    assert "| <high> | 2 | 29.000 |" in text
    assert "Each trial: up to 3 steps" in text
    assert "Stopped early: 1 of 2 trials" in text
    assert "worst trial" not in text
    assert "dashed: stopped early" in text


def test_trials_over_a_limit_and_the_pareto_front_are_listed(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    cost = {"sweep.costs": ["parameters"], "sweep.limits": {"parameters": 2e6}}
    for trial, parameters in zip(ranking, (1e6, 9e6), strict=True):
        trial["costs"] = {"parameters": parameters}
    planned = config(tmp_path).replaced(cost, "test")
    text, _ = written(planned, ranking)
    assert "Over sweep.limits, ranked last: <high>." in text
    assert "Pareto front of psnr_y and parameters: low." in text


def test_the_images_of_a_trial_are_compared_with_the_best_ones(
    ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    for trial, psnrs in zip(ranking, ((30.0, 34.0), (29.0, 31.0)), strict=True):
        images = [
            {"key": str(at), "metrics": {"psnr_y": psnr}, "input": {"psnr_y": 20.0}}
            for at, psnr in enumerate(psnrs)
        ]
        datasets = [{"name": "held_out", "per_picture": images}]
        (Path(trial["folder"]) / "result.json").write_text(
            json.dumps(RESULT | {"datasets": datasets})
        )
    text, _ = written(config(tmp_path), ranking)
    assert "best minus this, by image [95 % CI]: PSNR-Y (dB) of the best trial" in text
    assert "| +2.000 [" in text
    assert "SSIM on 2 images. Protocol" in text


def test_numbers_have_the_right_plural() -> None:
    assert [report.counted(number, "image") for number in (0, 1, 2000)] == [
        "0 images",
        "1 image",
        "2,000 images",
    ]


def test_the_command_is_named(
    ranking: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["/usr/bin/derainctl", "sweep", "configs/a b.yaml", "--profile", "smoke"]
    monkeypatch.setattr("sys.argv", typed)
    text, _ = written(config(tmp_path), ranking)
    assert "Command: derainctl sweep 'configs/a b.yaml' --profile smoke." in text
