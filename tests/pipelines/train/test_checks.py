"""Data that a run could not begin or end with is refused by the index, before anything starts."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.errors import ConfigError, DataError, StorageError
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.train.checks import caches_bytes, check_before_start, check_space
from derain.pipelines.train.verb import problems_before_ray, train
from derain.tune import dry_run
from tests.folders import write_pairs


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:  # noqa: ARG001
    """A held-out set of five images, two of which are 10 px high."""
    folder = tmp_path_factory.mktemp("small")
    write_pairs(folder / "source", 3, width=48, height=40)
    for side in ("rain", "clean"):
        strips = write_pairs(folder / f"strips-{side}", 2, width=48, height=10)
        for number, file in enumerate(sorted((strips / side).iterdir())):
            file.rename(folder / "source" / side / f"strip-{number}{file.suffix}")
    prepare("paired", folder / "source", folder / "b" / "test", PrepareOptions(split="test"))
    return folder / "b" / "test"


def with_eval(tiny: dict[str, Any], folder: Path, **changes: Any) -> Config:
    return Config.model_validate(
        {**tiny, "data": {**tiny["data"], "validation": str(folder)}, "name": "checked", **changes}
    )


def test_a_run_with_an_image_too_small_for_its_protocol_does_not_start(
    tiny: dict[str, Any], small_set: Path, tmp_path: Path
) -> None:
    config = with_eval(tiny, small_set, output_dir=str(tmp_path))
    message = rf"{small_set}: image strip-0 is 48x10 px; rain13k needs at least 11 px.*1 more"
    with pytest.raises(DataError, match=message):
        train(config)
    assert not config.folder.exists()
    sweep = {"space": {"train.lr": {"grid": [1e-3, 1e-4]}}}
    planned = dry_run.describe(with_eval(tiny, small_set, output_dir=str(tmp_path), sweep=sweep))
    assert [text.count("strip-0") for text in planned["warnings"]] == [1]


def test_each_trial_that_cannot_start_is_named(tiny: dict[str, Any], tmp_path: Path) -> None:
    stages = [{"from_step": 2, "crop_px": 40, "batch_size": 2}]
    runs = [
        Config.model_validate({**tiny, "name": f"s/{name}", "output_dir": str(tmp_path)}).replaced(
            values, "test"
        )
        for name, values in {
            "good": {},
            "crop": {"train.crop_px": 40},
            "stages": {"train.progressive": stages},
        }.items()
    ]
    with pytest.raises(ConfigError, match=r"s/crop: `train.crop_px`.*\ns/stages: `train.progress"):
        check_before_start(runs)
    check_before_start(runs[:1])


def test_small_training_images_and_missing_labels_are_noticed(
    tiny: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="derain")
    config = Config.model_validate({**tiny, "output_dir": str(tmp_path)})
    check_before_start([config])
    assert "mirrored" not in caplog.text
    check_before_start([config.replaced({"train.crop_px": 64}, "test")])
    assert "5 of 5 images are smaller than crops of 64 px" in caplog.text
    with pytest.raises(DataError, match="has no label `weather`"):
        check_before_start([config.replaced({"data.stratify": "weather"}, "test")])


def test_an_image_too_small_costs_an_evaluation_that_image_only(
    trained: Any, small_set: Path, rain_datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "a" / "test"
    other.parent.mkdir()
    other.symlink_to(rain_datasets[1])
    report = tmp_path / "report.md"
    model = trained.result["checkpoint"]
    result = evaluate(model, [str(small_set), str(other)], report=report)
    small, whole = result["datasets"]
    assert [small["name"], whole["name"]] == ["b/test", "a/test"]
    assert (small["pictures"], len(small["left_out"])) == (3, 2)
    assert (whole["pictures"], whole["left_out"]) == (2, [])
    assert whole["metrics"] == pytest.approx(trained.result["metrics"])
    assert [item["key"] for item in result["left_out"]] == ["strip-0", "strip-1"]
    assert "48x10 px" in result["left_out"][0]["reason"]
    text = report.read_text()
    assert "- b/test, strip-0: image strip-0 is 48x10 px" in text
    assert {path.name for path in (tmp_path / "report_images").iterdir()} == {
        "00-b-test.png",
        "01-a-test.png",
    }


def test_a_missing_shard_is_found_before_the_start(tiny: dict[str, Any], tmp_path: Path) -> None:
    lost = tmp_path / "train"
    shutil.copytree(tiny["data"]["train"], lost)
    (shard,) = lost.glob("*.tar")
    shard.unlink()
    data = {**tiny["data"], "train": str(lost), "cache_dir": str(tmp_path / "cache")}
    config = Config.model_validate({**tiny, "data": data, "output_dir": str(tmp_path)})
    with pytest.raises(
        DataError, match=f"{shard.name}: expected a shard of .* bytes, found no file"
    ):
        train(config)
    assert not config.folder.exists()


def test_a_disk_without_room_is_found_before_the_start(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = {**tiny["data"], "cache_dir": str(tmp_path / "cache")}
    config = Config.model_validate({**tiny, "data": data, "output_dir": str(tmp_path)})
    check_space([config])
    assert caches_bytes([config, config]) == (5 + 2) * 2 * 3 * 48 * 48
    greedy = config.replaced({"train.keep_checkpoints": 10**9}, "test")
    with pytest.raises(StorageError, match=r"of checkpoints.*train\.keep_checkpoints"):
        check_space([greedy])


def test_all_that_would_stop_a_run_is_found_in_one_go(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/thesis.tex").touch()
    data = {"train": "/nowhere", "validation": "/nowhere"}
    loss = {"perceptual": "vgg16", "perceptual_weights": "/nowhere/vgg.pth"}
    tree = {**tiny, "data": data, "loss": loss, "output_dir": str(tmp_path)}
    config = Config.model_validate(tree).replaced({"train.crop_px": 24}, "test")
    occupied, other = problems_before_ray(config)
    assert "thesis.tex" in str(occupied)
    absent, crop, weights = str(other).splitlines()
    assert "/nowhere: no such prepared dataset" in absent
    assert "train.crop_px" in crop
    assert "vgg.pth" in weights
