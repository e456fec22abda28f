"""The commands of the guide run as they are printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from benchmarks._small import write_dataset
from tests.folders import write_pairs
from tests.pipelines.evaluate.datasets import without_clean
from tests.repository import ROOT

GUIDE = ROOT / "docs" / "guides" / "evaluate.md"
RUN_ALL = """
import shlex, sys
from derain.cli.app import app
for line in sys.argv[1:]:
    app(shlex.split(line)[1:], standalone_mode=False)
"""
DETECTOR = """
class Detector:
    def __call__(self, image):
        return {"boxes": [[1, 1, 9, 9]], "labels": [1], "scores": [image.mean() / 255]}
"""


def write_lpips(folder: Path) -> None:
    """The two weight files of LPIPS, with random weights."""
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), folder / "alexnet.pth")
    channels = (64, 192, 384, 256, 256)
    heads = {f"lin{at}.model.1.weight": torch.rand(1, n, 1, 1) for at, n in enumerate(channels)}
    torch.save(heads, folder / "lpips_alex.pth")


@pytest.mark.soak
def test_every_command_of_the_guide_runs(model: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "runs").mkdir()
    for name in ("models/net", "models/old", "runs/new"):
        (tmp_path / name).symlink_to(model)
    write_lpips(tmp_path)
    (tmp_path / "prepared").mkdir()
    for name in ("rain100l", "test100"):
        source = write_pairs(tmp_path / name, 2, width=48, height=40)
        write_dataset(source, tmp_path / "prepared" / name, shards=1)
    real = without_clean(tmp_path / "real")
    (tmp_path / "prepared" / "real-rain").symlink_to(real.folder)
    (tmp_path / "boxes.py").write_text(DETECTOR)

    commands = re.findall(r"^derainctl evaluate .*$", GUIDE.read_text(), re.M)
    assert len(commands) == 6
    commands = [line.replace("models:/net@champion", "models/old") for line in commands]
    path = f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mAP with" in done.stdout + done.stderr
    result = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert [item["name"] for item in result["datasets"]] == ["rain100l", "test100"]
    assert "MLflow run" in done.stdout + done.stderr
    for name in ("scores.md", "gallery.html", "scores/images.parquet"):
        assert (tmp_path / name).is_file()
