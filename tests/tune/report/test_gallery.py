"""The images of a sweep's report: of trained trials, on prepared images, with their own metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.config import Config
from derain.data.prepared.index import INDEX, write_index
from derain.data.prepared.manifest import Manifest, write_manifest
from derain.data.prepared.shards import write_shards
from derain.data.sources.discover import find_pairs
from derain.inference.predictor import Predictor
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.tune.report import gallery
from tests.folders import PairedFolder
from tests.tiny import TINY, config, run

KEYS = ("000", "001", "002", "003", "004")

RESULT = {"checkpoint": "step-4", "metrics": {}, "steps": 4}


@pytest.fixture
def held_out(paired_folder: PairedFolder, tmp_path: Path) -> Path:
    """A prepared dataset of five pairs."""
    source, out = paired_folder(len(KEYS), width=40, height=32), tmp_path / "held_out"
    out.mkdir()
    shards = write_shards(find_pairs("paired", source).pairs, source, out / "shard-000000.tar")
    index = write_index(out / INDEX, [shards.rows])
    size = sum(entry.bytes for entry in shards.entries)
    manifest = Manifest("paired", "train", len(KEYS), size, shards.entries, index, "", {})
    write_manifest(out, manifest)
    return out


@pytest.fixture
def ranking(tmp_path: Path) -> list[dict[str, Any]]:
    """Two trained trials; PSNR-Y of the best falls from image to image."""
    rows = []
    for name, psnr in (("good", 30.0), ("bad", 20.0)):
        trained = run(config(tmp_path / name, steps=1))
        images = [
            {
                "key": key,
                "metrics": {"psnr_y": psnr - at, "ssim_y": 0.9},
                "input": {"psnr_y": 15.0, "ssim_y": 0.5},
            }
            for at, key in enumerate(KEYS)
        ]
        result = {"datasets": [{"name": "held_out", "per_picture": images}]}
        (tmp_path / name / "result.json").write_text(json.dumps(RESULT | result))
        rows.append(
            {"name": name, "folder": str(tmp_path / name), "checkpoint": str(trained.checkpoint)}
        )
    return rows


def planned(held_out: Path, output_dir: Path) -> Config:
    tree = {
        **TINY,
        "name": "sweep",
        "output_dir": str(output_dir),
        "data": {"train": str(held_out), "validation": str(held_out)},
        "sweep": {"space": {"train.lr": {"grid": [0.1, 0.2]}}},
    }
    return Config.model_validate(tree)


def test_images_have_the_outputs_and_the_metrics_of_both_trials(
    held_out: Path, ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    images = gallery.derain_images(planned(held_out, tmp_path), ranking)
    assert [image.key for image in images] == list(KEYS)
    last = images[-1]
    assert list(last.images()) == ["rainy", "good", "bad", "clean"]
    assert {name: of["psnr_y"] for name, of in last.metrics.items()} == {
        "rainy": 15.0,
        "good": 26.0,
        "bad": 16.0,
    }
    network = restore_network(checkpoint.load(ranking[0]["checkpoint"]))
    expected = Predictor(network, "cpu").derain(last.rain)
    assert np.array_equal(last.outputs["good"], expected)


def test_the_page_and_the_grid_are_written(
    held_out: Path, ranking: list[dict[str, Any]], tmp_path: Path
) -> None:
    gallery.write(planned(held_out, tmp_path), ranking, tmp_path / "report")
    page = (tmp_path / "report" / gallery.PAGE).read_text()
    assert page.count('class="image"') == len(KEYS)
    assert "Sweep sweep: good and bad" in page
    assert "Metrics under the protocol rain13k v1." in page
    grid = Image.open(tmp_path / "report" / gallery.GRID)
    assert grid.height > 0.7 * grid.width  # four rows of four
