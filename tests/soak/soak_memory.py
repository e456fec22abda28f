"""`predict` on an image of 12,000 x 9,000 px, where a container gives the process 4 GiB."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from derain.data.images.decode import read_image
from derain.inference.predictor import Predictor, save_model_folder
from derain.models import build
from tests.soak.stack import needs_root

GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 4 * 2**30
SIZE = (12_000, 9_000)
OPTIONS = {"recursions": 2, "width": 8}
"""Of a PReNet that sees no further than tiles overlap; NAFNet averages over the whole tile."""
WHERE = (4_321, 5_678)
"""Upper left corner of a part that is compared."""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group (of version 1) with the limit."""
    needs_root("creating a control group")
    folder = GROUPS / "derain-soak"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(LIMIT))
    yield folder
    folder.rmdir()


def test_a_large_image_fits_into_four_gibibytes(group: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("prenet", **OPTIONS)
    model = save_model_folder(network, tmp_path / "net", "prenet", OPTIONS)
    coarse = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    image.save(tmp_path / "large.png", compress_level=1)
    command = [sys.executable, "-m", "derain.cli", "predict", model, tmp_path / "large.png"]
    command += ["--out", tmp_path / "out", "--device", "cpu", "--json"]
    own = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    began = time.monotonic()
    done = subprocess.run(
        ["sh", "-c", own, "sh", *map(str, command)], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began
    peak = int((group / "memory.max_usage_in_bytes").read_text())
    print(f"\n12,000 x 9,000 px in {seconds:.0f} s, peak {peak / 2**20:,.0f} MiB")
    assert done.returncode == 0, done.stderr
    (written,) = json.loads(done.stdout)["written"]
    top, left = WHERE
    part = np.asarray(image.crop((left - 400, top - 400, left + 600, top + 600)))
    expected = Predictor(network).derain(part)[400:600, 400:600]
    found = read_image(written)
    assert found.shape == (SIZE[1], SIZE[0], 3)
    near = found[top : top + 200, left : left + 200].astype(int) - expected
    assert np.abs(near).max() <= 1
