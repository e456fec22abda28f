"""Every command of the guide "How do I ..." runs, in its order, in one folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from derain.models import build
from tests.folders import write_pairs
from tests.repository import ROOT

GUIDE = ROOT / "docs" / "guides" / "questions.md"
RUN_ALL = """
import shlex, sys
from derain import cluster
from derain.cli.app import app
with cluster.connected():  # one Ray for all of them
    for line in sys.argv[1:]:
        print("$", line, file=sys.stderr, flush=True)
        app(shlex.split(line)[1:], standalone_mode=False)
"""
NETWORK = '''
from torch import nn

class Net(nn.Module):
    """Adds a correction to the rainy image."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 1))

    def forward(self, rain):
        return rain + self.layers(rain)
'''
NAFNET = {"width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]}
SWEEP = {
    "extends": "nafnet",
    "name": "search",
    "profile": "smoke",
    "sweep": {"space": {"train.lr": {"grid": [1e-3, 2e-3]}}},
}


def write_workspace(folder: Path) -> None:
    """What the guide takes for granted: data, images of others, weights, a network, a sweep."""
    write_pairs(folder / "rain", 12, width=208, height=200)
    write_pairs(folder / "tested", 3, width=204, height=196)
    for side in ("rain", "clean"):  # one of the test images is in the training set
        shutil.copy(folder / "rain" / side / "000.png", folder / "tested" / side / "000.png")
    (folder / "mine" / "in").mkdir(parents=True)
    (folder / "mine" / "gt").mkdir()
    (folder / "photos").mkdir()
    for number, path in enumerate(sorted((folder / "rain" / "rain").iterdir())[:2]):
        with Image.open(path) as image:
            for place in (f"mine/in/{number}.png", f"mine/gt/{number}.png", f"photos/{number}.png"):
                image.save(folder / place)
    torch.save({"params": build("nafnet", **NAFNET).state_dict()}, folder / "net.pth")
    (folder / "my_network.py").write_text(NETWORK)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))


@pytest.mark.soak
def test_every_command_of_the_guide_runs(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    questions = GUIDE.read_text()
    assert questions.count("\n**...") >= 20
    commands = re.findall(r"^derainctl .*$", questions, re.M)
    first = "derainctl prepare paired tested prepared/test"
    (tmp_path / "their-images").symlink_to(tmp_path / "tested" / "clean")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, first, *commands],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for written in ("gallery.html", "tables/tables.md", "derained/0.png", "nafnet.onnx"):
        assert (tmp_path / written).is_file()
